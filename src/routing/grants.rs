//! What a service may ask of the gateway. The default is to reply, and nothing else.

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Log a session in as a user, and out.
    Login,
    /// End sessions, revoke access tokens.
    Kick,
    /// Change groups, and push to them.
    Groups,
    /// Push to users and sessions.
    Push,
    /// Push to everyone.
    PushAll,
    /// Know who is here.
    Presence,
}

impl Right {
    /// All of them, with their names in the configuration.
    pub const ALL: [(&'static str, Right); 6] = [
        ("login", Right::Login),
        ("kick", Right::Kick),
        ("groups", Right::Groups),
        ("push", Right::Push),
        ("push_all", Right::PushAll),
        ("presence", Right::Presence),
    ];
}

/// The rights of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grants(u8);

impl Grants {
    /// None.
    pub const NONE: Grants = Grants(0);

    /// These, and this one.
    #[must_use]
    pub const fn with(self, right: Right) -> Grants {
        Grants(self.0 | 1 << right as u8)
    }

    /// Whether it is among them.
    pub const fn has(self, right: Right) -> bool {
        self.0 & 1 << right as u8 != 0
    }

    /// Whether any push is.
    pub const fn may_push(self) -> bool {
        self.has(Right::Push) || self.has(Right::PushAll) || self.has(Right::Groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_apart() {
        for (_, right) in Right::ALL {
            let grants = Grants::NONE.with(right);
            assert!(Right::ALL.iter().all(|(_, other)| grants.has(*other) == (*other == right)));
            assert_eq!(grants.may_push(), !matches!(right, Right::Login | Right::Kick | Right::Presence));
        }
    }
}
