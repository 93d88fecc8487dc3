//! Text that comes from elsewhere, within bounds.

/// The longest start of `text` within `bytes_max` bytes that is whole characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}
