//! Whether an endpoint answers, as we see it ourselves: by the links of the workers, and by probes when it has none.
//!
//! ```text
//!   Unknown -- a link, one probe that succeeds --> Answers
//!   Unknown -- `fall` probes that fail ----------> Silent
//!   Answers -- no link, `fall` probes that fail -> Silent
//!   Silent --- a link, `rise` probes that succeed -> Answers
//! ```

/// See the module's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Health {
    is_linked: bool,
    view: View,
    /// Probes in a row that speak against the view.
    against: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum View {
    #[default]
    Unknown,
    Answers,
    Silent,
}

impl Health {
    pub(super) fn linked(&mut self, is_linked: bool) {
        self.is_linked = is_linked;
        if is_linked {
            (self.view, self.against) = (View::Answers, 0);
        }
    }

    pub(super) fn probed(&mut self, has_answered: bool, fall: u32, rise: u32) {
        if self.is_linked {
            return;
        }
        let (is_against, needed, other) = match (self.view, has_answered) {
            (View::Unknown, true) => (true, 1, View::Answers),
            (View::Unknown | View::Answers, false) => (true, fall, View::Silent),
            (View::Silent, true) => (true, rise, View::Answers),
            (view, _) => (false, 0, view),
        };
        self.against = if is_against { self.against.saturating_add(1) } else { 0 };
        if is_against && self.against >= needed {
            (self.view, self.against) = (other, 0);
        }
    }

    pub(super) fn is_linked(&self) -> bool {
        self.is_linked
    }

    pub(super) fn is_silent(&self) -> bool {
        self.view == View::Silent
    }

    /// Whether it does not answer: probes have said so, or the first one of an endpoint that never answered.
    pub(super) fn is_dead(&self) -> bool {
        !self.is_linked && (self.view == View::Silent || self.view == View::Unknown && self.against > 0)
    }

    /// `None`: not known yet.
    pub(super) fn view(&self) -> Option<bool> {
        match self.view {
            View::Unknown => None,
            View::Answers => Some(true),
            View::Silent => Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(probes: &[bool]) -> Option<bool> {
        let mut health = Health::default();
        probes.iter().for_each(|probe| health.probed(*probe, 3, 2));
        health.view()
    }

    #[test]
    fn probes_change_the_view_by_their_thresholds() {
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[true]), Some(true));
        assert_eq!(after(&[false, false]), None);
        assert_eq!(after(&[false, false, false]), Some(false));
        assert_eq!(after(&[true, false, false, true, false, false]), Some(true), "not in a row");
        assert_eq!(after(&[true, false, false, false]), Some(false));
        assert_eq!(after(&[false, false, false, true]), Some(false));
        assert_eq!(after(&[false, false, false, true, false, true]), Some(false));
        assert_eq!(after(&[false, false, false, true, true]), Some(true));
    }

    #[test]
    fn one_that_never_answered_is_dead_after_one_probe() {
        let is_dead = |probes: &[bool]| {
            let mut health = Health::default();
            probes.iter().for_each(|probe| health.probed(*probe, 3, 2));
            health.is_dead()
        };
        assert!(!is_dead(&[]) && is_dead(&[false]) && is_dead(&[false, false, false]));
        assert!(!is_dead(&[true, false, false]), "until as many probes say so as are asked for");
        assert!(is_dead(&[true, false, false, false, true]) && !is_dead(&[false, false, false, true, true]));
    }

    #[test]
    fn a_link_outweighs_probes() {
        let mut health = Health::default();
        health.linked(true);
        for _ in 0..5 {
            health.probed(false, 3, 2);
        }
        assert!(health.view() == Some(true) && health.is_linked());
        health.linked(false);
        assert!(health.view() == Some(true), "until probes say otherwise");
        for _ in 0..3 {
            health.probed(false, 3, 2);
        }
        assert!(health.is_silent());
        health.linked(true);
        assert!(health.view() == Some(true));
    }
}
