//! `moorgate explain --log`: a line of the access log in words.

use super::{Failure, LINE_BYTES_MAX, failed, line, print, usage};
use moorgate::base::text::shown;
use moorgate::telemetry::why_in_words;
use std::io::{BufRead, BufReader, Read};

/// The gateway writes no longer line; what is longer is read in pieces.
const READ_BYTES_MAX: u64 = 64 * 1024;

/// Explains the line of a request, or every line that comes.
pub(super) fn explain(path: &str, request: Option<&str>) -> Result<(), Failure> {
    let wanted = match request {
        Some(request) => Some(wanted(request)?),
        None if path == "-" => None,
        None => return usage("say which request: --request SESSION:SEQ, as its line has them"),
    };
    let unreadable = |error: std::io::Error| failed(format!("{path} cannot be read: {error}"));
    let source: Box<dyn Read> = match path {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(unreadable)?),
    };
    let mut reader = BufReader::new(source);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = reader.by_ref().take(READ_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&bytes);
        match &wanted {
            // Behind the time, and nowhere else: what a user is called may look like it.
            Some(part) if !text.split_once(' ').is_some_and(|(_, rest)| rest.starts_with(part.as_str())) => {}
            Some(_) => return print(&in_words(text.trim_end())?),
            None => print(&in_words(text.trim_end())?)?,
        }
    }
    match request {
        Some(request) => Err(failed(format!("{path} has no line of request {request}"))),
        None => Ok(()),
    }
}

/// What a request's line has behind its time.
fn wanted(request: &str) -> Result<String, Failure> {
    let parts = request.split_once(':');
    let parts = parts.filter(|(session, seq)| {
        session.len() == 32
            && session.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !seq.is_empty()
            && seq.bytes().all(|byte| byte.is_ascii_digit())
    });
    match parts {
        Some((session, seq)) => Ok(format!("session={} seq={seq} ", session.to_ascii_lowercase())),
        None => usage(format!(
            "--request: `{}` is no request; write SESSION:SEQ, 32 hexadecimal digits and a number",
            request.escape_debug()
        )),
    }
}

fn in_words(text: &str) -> Result<String, Failure> {
    let fields = fields(text);
    let field =
        |name: &str| fields.iter().find(|(other, _)| *other == name).map_or("-", |(_, value)| value.as_str());
    if field("session") == "-" || field("status") == "-" {
        return Err(failed(format!("this is no line of an access log: {}", text.escape_debug())));
    }
    let user = match field("user") {
        "-" => "an anonymous session".to_owned(),
        user => format!("user {user}"),
    };
    let head = format!(
        "request {} of session {}, of {user} from {}, at {}",
        field("seq"),
        field("session"),
        field("peer"),
        field("time")
    );
    let mut words = shown(&head, LINE_BYTES_MAX);
    words.push('\n');
    line(&mut words, "command", field("command"));
    line(&mut words, "service", dash(field("service"), "none: no route led to one"));
    line(&mut words, "endpoint", dash(field("endpoint"), "none: it was answered before it was sent"));
    let ran = match field("execution") {
        "executed" => "it ran",
        "not_executed" => "it did not run",
        _ => "whether it ran is not known",
    };
    let reason = match field("reason") {
        "UNSPECIFIED" | "-" | "" => String::new(),
        reason => format!(", {reason}"),
    };
    line(
        &mut words,
        "outcome",
        &format!("{}{reason}, said by the {}; {ran}", field("status"), field("source")),
    );
    let (us, bytes_in, bytes_out) = (field("us"), field("bytes_in"), field("bytes_out"));
    line(&mut words, "took", &format!("{us} us, {bytes_in} bytes in, {bytes_out} bytes out"));
    let why = match fields.iter().find(|(name, _)| *name == "why") {
        None => vec!["its line does not say: it is of an older gateway".to_owned()],
        Some((_, why)) => why_in_words(why)
            .map_err(|error| failed(format!("why={}: {error}", shown(why, LINE_BYTES_MAX))))?,
    };
    for (at, sentence) in why.iter().enumerate() {
        line(&mut words, if at == 0 { "why" } else { "" }, sentence);
    }
    Ok(words)
}

fn dash<'a>(value: &'a str, otherwise: &'a str) -> &'a str {
    if value == "-" { otherwise } else { value }
}

/// `key=value` pairs; a value in quotes stays as it is escaped, but for the quotes.
fn fields(text: &str) -> Vec<(&str, String)> {
    let mut fields = Vec::new();
    let mut rest = text;
    while let Some((key, behind)) = rest.split_once('=') {
        let (value, after) = match behind.strip_prefix('"') {
            Some(quoted) => {
                let end = closing(quoted);
                (quoted.get(..end), quoted.get(end.saturating_add(1)..))
            }
            None => match behind.split_once(' ') {
                Some((value, _)) => (Some(value), behind.get(value.len()..)),
                None => (Some(behind), None),
            },
        };
        fields.push((key, value.unwrap_or_default().to_owned()));
        rest = after.unwrap_or_default().trim_start();
    }
    fields
}

/// Where a quoted value ends.
fn closing(quoted: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in quoted.bytes().enumerate() {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'"' if !escaped => return at,
            _ => escaped = false,
        }
    }
    quoted.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_keep_what_is_in_them() {
        let text = r#"a=1 user="eve\" seq=9 \\" b=x=y c="#;
        let expected = [("a", "1"), ("user", r#"eve\" seq=9 \\"#), ("b", "x=y"), ("c", "")];
        assert_eq!(fields(text), expected.map(|(key, value)| (key, value.to_owned())));
        assert_eq!(fields("nothing"), []);
        assert_eq!(fields("a=\"open"), [("a", "open".to_owned())]);
    }
}
