//! How parts of a row look: the terminal's own sixteen colours, and of these only those that can be read on dark and on
//! light grounds alike.

/// A colour of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Green,
    Magenta,
    Cyan,
}

/// How a part looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Style {
    /// Without one, the terminal's own.
    pub(crate) colour: Option<Colour>,
    pub(crate) is_bold: bool,
    pub(crate) is_dim: bool,
    pub(crate) is_reverse: bool,
}

impl Style {
    pub(crate) const PLAIN: Style = Style { colour: None, is_bold: false, is_dim: false, is_reverse: false };
    pub(crate) const BOLD: Style = Style { is_bold: true, ..Style::PLAIN };
    pub(crate) const DIM: Style = Style { is_dim: true, ..Style::PLAIN };
    pub(crate) const REVERSE: Style = Style { is_reverse: true, ..Style::PLAIN };
    pub(crate) const PROBLEM: Style = Style { colour: Some(Colour::Red), ..Style::PLAIN };

    /// Of somebody's name, the same each time.
    pub(crate) fn of_name(name: &str) -> Style {
        let sum = name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let colour = match sum % 3 {
            0 => Colour::Green,
            1 => Colour::Magenta,
            _ => Colour::Cyan,
        };
        Style { colour: Some(colour), is_bold: true, ..Style::PLAIN }
    }
}

/// A part of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) style: Style,
}

/// A row of the screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Row {
    pub(crate) spans: Vec<Span>,
}

impl Row {
    pub(crate) fn add(&mut self, text: impl Into<String>, style: Style) {
        let text = text.into();
        if !text.is_empty() {
            self.spans.push(Span { text, style });
        }
    }

    /// Its letters.
    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        self.spans.iter().map(|span| span.text.as_str()).collect()
    }
}
