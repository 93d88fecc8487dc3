//! A share of everybody, as people write it.

use super::text::shown;

/// Bytes of a text that an error repeats.
const TEXT_BYTES_MAX: usize = 64;

/// A share of everybody, as `"5%"` or `"0.25%"`, in hundredths of a percent.
///
/// # Errors
/// What would be right, for people.
pub fn parse_share(text: &str) -> Result<u32, String> {
    const ALL: u32 = 10_000;
    let wrong = || {
        format!(
            "`{}` is no share; write \"0%\" to \"100%\", with two decimals at the most, as \"5%\" or \"0.25%\"",
            shown(text, TEXT_BYTES_MAX)
        )
    };
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "00"));
    let is_digits =
        |text: &str, max| (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole, 3) || !is_digits(part, 2) {
        return Err(wrong());
    }
    let hundredths: Option<u32> = format!("{whole}{part:0<2}").parse().ok();
    hundredths.filter(|share| *share <= ALL).ok_or_else(wrong)
}

/// A share as it is best written.
pub fn write_share(hundredths: u32) -> String {
    match (hundredths / 100, hundredths % 100) {
        (whole, 0) => format!("{whole}%"),
        (whole, part) => format!("{whole}.{part:02}%").replace("0%", "%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_two_decimals() {
        for (text, share) in
            [("0%", 0), ("5%", 500), ("0.25%", 25), ("0.5%", 50), ("99.99%", 9999), ("100%", 10_000)]
        {
            assert_eq!((parse_share(text), write_share(share).as_str()), (Ok(share), text));
        }
        for text in
            ["", "%", "5", "-1%", "100.01%", "101%", "0.001%", "1.%", ".5%", "1e1%", "0.+1%", " 5%", "5 %"]
        {
            assert!(parse_share(text).unwrap_err().contains("\"0.25%\""), "{text}");
        }
    }
}
