//! Role names as bits: only the roles that some route asks for matter here.

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoleMask(u64);

impl RoleMask {
    /// No role.
    pub const NONE: RoleMask = RoleMask(0);

    /// Whether the two sets share a role.
    pub fn meets(self, other: RoleMask) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it is empty.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// The names of all roles that routes ask for.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    names: Vec<String>,
}

impl Roles {
    /// Most different roles that routes may ask for.
    pub const MAX: usize = 64;

    /// The bit of a role, which is given one if it has none; `None` when all bits are taken.
    pub fn intern(&mut self, name: &str) -> Option<RoleMask> {
        if self.mask_of(name).is_none() {
            if self.names.len() >= Roles::MAX {
                return None;
            }
            self.names.push(name.to_owned());
        }
        Some(self.mask_of(name))
    }

    /// The bit of a role; no bit when no route asks for it.
    pub fn mask_of(&self, name: &str) -> RoleMask {
        match self.names.iter().position(|known| known == name) {
            Some(at) => RoleMask(1 << at),
            None => RoleMask::NONE,
        }
    }

    /// The bits of several roles.
    pub fn mask<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> RoleMask {
        names.into_iter().fold(RoleMask::NONE, |mask, name| RoleMask(mask.0 | self.mask_of(name).0))
    }
}
