//! Whom the pushes go to. An audience has *targets*: everyone, groups, or blocks of users. Push n goes to target n modulo
//! their number, so that each connection knows by the number alone which pushes are for it, and in which order.

use clap::ValueEnum;
use moorgate_service::Push;

/// The command of the pushes.
pub(crate) const PUSH: u32 = 0x0101;

/// What a push is addressed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// Each push to the next user, or to the next few.
    Users,
    /// Each push to the next group.
    Group,
    /// Each push to everyone.
    Everyone,
}

/// See the module's page. Connections and targets are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Audience {
    to: To,
    connections: u32,
    targets: u32,
    /// Connections in each group, or users in a block; 0: as many as there are.
    each: u32,
}

impl Audience {
    /// All connections.
    pub(crate) fn everyone(connections: u32) -> Audience {
        Audience { to: To::Everyone, connections, targets: 1, each: 0 }
    }

    /// Blocks of so many users; the last may be smaller.
    pub(crate) fn users(connections: u32, each: u32) -> Audience {
        let each = each.max(1);
        Audience { to: To::Users, connections, targets: connections.div_ceil(each), each }
    }

    /// So many groups of so many connections each; of all connections in turn when `each` is 0. `None`: there are not
    /// that many connections.
    pub(crate) fn groups(connections: u32, groups: u32, each: u32) -> Option<Audience> {
        let needed = groups.checked_mul(each.max(1))?;
        let enough = groups > 0 && needed <= connections;
        enough.then_some(Audience { to: To::Group, connections, targets: groups, each })
    }

    pub(crate) fn targets(&self) -> u32 {
        self.targets
    }

    /// Whether connections join their targets by a request.
    pub(crate) fn joins(&self) -> bool {
        self.to == To::Group
    }

    /// The target that a connection belongs to; `None`: it gets no pushes.
    pub(crate) fn target_of(&self, connection: u32) -> Option<u32> {
        match self.to {
            To::Everyone => Some(0),
            To::Users => connection.checked_div(self.each),
            To::Group => {
                let is_in = self.each == 0 || connection < self.targets.saturating_mul(self.each);
                connection.checked_rem(self.targets).filter(|_| is_in)
            }
        }
    }

    /// The target of a push, and which of the pushes to that one it is.
    pub(crate) fn place(&self, number: u64) -> (u32, u64) {
        let targets = u64::from(self.targets.max(1));
        let target = u32::try_from(number % targets).unwrap_or(u32::MAX);
        (target, number / targets)
    }

    /// The connections of a target.
    pub(crate) fn size(&self, target: u32) -> u32 {
        if target >= self.targets {
            return 0;
        }
        match self.to {
            To::Everyone => self.connections,
            To::Users => self.each.min(self.connections.saturating_sub(target.saturating_mul(self.each))),
            To::Group if self.each > 0 => self.each,
            To::Group => {
                self.connections / self.targets + u32::from(target < self.connections % self.targets)
            }
        }
    }

    /// The connections that get pushes at all.
    pub(crate) fn members(&self) -> u64 {
        match (self.to, self.each) {
            (To::Group, 1..) => u64::from(self.targets).saturating_mul(u64::from(self.each)),
            (To::Group, 0) | (To::Users | To::Everyone, _) => u64::from(self.connections),
        }
    }

    /// The push for a target.
    pub(crate) fn push(&self, command: u32, target: u32, payload: Vec<u8>) -> Push {
        match self.to {
            To::Everyone => Push::to_everyone(command, payload),
            To::Group => Push::to_group(&group_name(target), command, payload),
            To::Users => {
                let first = target.saturating_mul(self.each);
                let users: Vec<String> =
                    (0..self.size(target)).map(|at| user_name(first.saturating_add(at))).collect();
                Push::to_users(users.iter().map(String::as_str), command, payload)
            }
        }
    }
}

/// The user of a connection: 16 bytes, as many deployments have them.
pub(crate) fn user_name(connection: u32) -> String {
    format!("user-{connection:011}")
}

/// The group that is a target.
pub(crate) fn group_name(target: u32) -> String {
    format!("group-{target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each target has as many connections as it says, each push one target, and each target its pushes in order.
    fn is_consistent(audience: Audience) {
        let of = |connection| audience.target_of(connection);
        let counted = |target| (0..audience.connections).filter(|c| of(*c) == Some(target)).count();
        for target in 0..audience.targets() {
            assert_eq!(counted(target), audience.size(target) as usize, "{audience:?} {target}");
        }
        let members = (0..audience.connections).filter(|c| of(*c).is_some()).count();
        assert_eq!(members as u64, audience.members(), "{audience:?}");
        let mut next = vec![0; audience.targets() as usize];
        for number in 0..100 {
            let (target, count) = audience.place(number);
            assert_eq!(count, next[target as usize]);
            next[target as usize] += 1;
        }
    }

    #[test]
    fn connections_pushes_and_targets_agree() {
        for connections in [1, 2, 7, 10] {
            is_consistent(Audience::everyone(connections));
            for each in [1, 2, 3, 100] {
                is_consistent(Audience::users(connections, each));
            }
            for (groups, each) in [(1, 0), (1, 1), (2, 0), (3, 0), (2, 2), (3, 3), (7, 1)] {
                match Audience::groups(connections, groups, each) {
                    Some(audience) => is_consistent(audience),
                    None => assert!(groups * each.max(1) > connections),
                }
            }
        }
        assert_eq!(Audience::groups(10, 0, 1), None);
        assert_eq!(Audience::groups(10, u32::MAX, 3), None);
    }

    #[test]
    fn who_is_in_no_group_gets_nothing() {
        let audience = Audience::groups(10, 2, 3).unwrap();
        let members: Vec<Option<u32>> = (4..8).map(|connection| audience.target_of(connection)).collect();
        assert_eq!(members, [Some(0), Some(1), None, None]);
        assert_eq!(audience.size(2), 0);
    }
}
