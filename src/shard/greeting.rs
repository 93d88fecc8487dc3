//! Other protocols on the port: what the first four bytes say, read as a length.

/// What protocol begins with these four bytes, when they make no sense as a length.
pub(super) fn protocol_of(length: u32) -> Option<&'static str> {
    match &length.to_be_bytes() {
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"CONN" | b"PRI " | b"DELE" | b"PATC" | b"TRAC" => {
            Some("HTTP")
        }
        // The record of a handshake or, as old clients begin it, its length with the highest bit set.
        [0x16, 0x03, _, _] | [0x80..=0x8f, _, 0x01, 0x03 | 0x00] => Some("TLS"),
        b"PROX" | [0x0d, 0x0a, 0x0d, 0x0a] => Some("the PROXY protocol"),
        b"SSH-" => Some("SSH"),
        text if text.iter().all(|byte| byte.is_ascii_graphic() || b" \t\r\n".contains(byte)) => {
            Some("a text protocol")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_told_apart() {
        let table: [(&[u8; 4], Option<&str>); 9] = [
            (b"GET ", Some("HTTP")),
            (b"PRI ", Some("HTTP")),
            (&[0x16, 3, 1, 0], Some("TLS")),
            (&[0x80, 0x2e, 1, 3], Some("TLS")),
            (b"PROX", Some("the PROXY protocol")),
            (b"\r\n\r\n", Some("the PROXY protocol")),
            (b"PING", Some("a text protocol")),
            (&[0, 1, 0x11, 0x70], None),
            (&[0xff, 0xff, 0xff, 0xff], None),
        ];
        for (bytes, protocol) in table {
            assert_eq!(protocol_of(u32::from_be_bytes(*bytes)), protocol, "{bytes:?}");
        }
    }
}
