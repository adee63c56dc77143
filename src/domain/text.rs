//! Characters that are there and that nobody sees.

/// Unicode general category Cf, and the line and paragraph separators: what a log or terminal may obey.
pub fn is_format(c: char) -> bool {
    matches!(u32::from(c),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x180e
        | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb
        | 0x110bd | 0x110cd | 0x13430..=0x1343f | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a
        | 0xe0001 | 0xe0020..=0xe007f)
}

/// A control or format character, one that Unicode calls default ignorable (fillers, joiners, variation selectors), or the
/// blank Braille pattern.
pub fn is_invisible(c: char) -> bool {
    let ignorable = matches!(u32::from(c),
        0x34f | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x2800 | 0x3164 | 0xfe00..=0xfe0f
        | 0xffa0 | 0xfff0..=0xfff8 | 0xe0000..=0xe0fff);
    c.is_control() || is_format(c) || ignorable
}
