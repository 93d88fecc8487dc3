//! Single parameters of what an operator asks for, within bounds.

use crate::base::ids::SessionId;
use moorgate_proto::limits::USER_ID_BYTES;
use std::net::IpAddr;

/// A text that is neither empty nor too long.
pub(super) fn bounded(name: &str, text: String, max: usize) -> Result<String, String> {
    if (1..=max).contains(&text.len()) {
        return Ok(text);
    }
    Err(format!("{name} has {} bytes; write 1 to {max}", text.len()))
}

/// A user.
pub(super) fn user_id(text: String) -> Result<String, String> {
    bounded("user", text, USER_ID_BYTES)
}

/// A session, as the access log has it.
pub(super) fn session_id(text: &str) -> Result<SessionId, String> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u128::from_str_radix(text, 16) {
        Ok(number) if is_hex => Ok(SessionId(number.to_be_bytes())),
        _ => Err(format!("session is `{text}`; write the 32 hexadecimal digits that the access log has")),
    }
}

/// An address, never an IPv4 one in IPv6's clothes.
pub(super) fn ip_address(text: &str) -> Result<IpAddr, String> {
    let address: Result<IpAddr, _> = text.parse();
    let wrong = |_| format!("address is `{text}`; write an IP address without a port, as 192.0.2.7");
    address.map(|address| address.to_canonical()).map_err(wrong)
}
