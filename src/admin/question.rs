//! What a call is explained for: a command, and whatever is known of its caller.

use super::parameter::{bounded, ip_address, session_id, user_id};
use super::query::Query;
use crate::base::ids::SessionId;
use moorgate_proto::limits::NAME_BYTES;
use std::net::IpAddr;

/// Roles of one question.
const ROLES_MAX: usize = 16;

/// A call that might be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// What would be asked for.
    pub command: u32,
    /// In which version.
    pub version: u32,
    /// By whom; empty: anonymous.
    pub user_id: String,
    /// In which session.
    pub session: Option<SessionId>,
    /// The user's roles.
    pub roles: Vec<String>,
    /// The application.
    pub application: String,
    /// Its version.
    pub app_version: String,
    /// The platform.
    pub platform: String,
    /// The device.
    pub device_id: String,
    /// Where the client is.
    pub address: Option<IpAddr>,
}

/// Reads the parameters of `/explain`.
pub(super) fn read(mut query: Query) -> Result<Question, String> {
    const RIGHT: &str = "command=0x0201, and of version, user, session, role, application, app_version, platform, \
                         device and address what matters";
    let command = query.take("command");
    let version = query.take("version").map(|text| number("version", &text)).transpose()?;
    let user = query.take("user").map(user_id).transpose()?;
    let session = query.take("session").map(|text| session_id(&text)).transpose()?;
    let mut roles = Vec::new();
    while let Some(role) = query.take_another("role") {
        roles.push(bounded("role", role, NAME_BYTES)?);
    }
    let mut name = |key: &str| -> Result<String, String> {
        Ok(query.take(key).map(|text| bounded(key, text, NAME_BYTES)).transpose()?.unwrap_or_default())
    };
    let (application, app_version) = (name("application")?, name("app_version")?);
    let (platform, device_id) = (name("platform")?, name("device")?);
    let address = query.take("address").map(|text| ip_address(&text)).transpose()?;
    query.finish(RIGHT)?;
    if roles.len() > ROLES_MAX {
        return Err(format!("{} roles; write {ROLES_MAX} or fewer", roles.len()));
    }
    let Some(command) = command else { return Err(format!("which call? write {RIGHT}")) };
    Ok(Question {
        command: number("command", &command)?,
        version: version.unwrap_or(1),
        user_id: user.unwrap_or_default(),
        session,
        roles,
        application,
        app_version,
        platform,
        device_id,
        address,
    })
}

fn number(name: &str, text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16).ok()
        }
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| format!("{name} is `{text}`; write a number such as 0x0201 or 7"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Question, String> {
        super::read(Query::parse(query)?)
    }

    #[test]
    fn a_question_is_read_from_its_parameters() {
        let query = "command=0x0201&version=2&user=alice&session=000000000000000000000000000000ab&role=a&role=b\
                     &application=im&app_version=2.0&platform=ios&device=d-1&address=::ffff:192.0.2.7";
        let question = Question {
            command: 0x201,
            version: 2,
            user_id: "alice".to_owned(),
            session: Some(SessionId(171u128.to_be_bytes())),
            roles: vec!["a".to_owned(), "b".to_owned()],
            application: "im".to_owned(),
            app_version: "2.0".to_owned(),
            platform: "ios".to_owned(),
            device_id: "d-1".to_owned(),
            address: Some([192, 0, 2, 7].into()),
        };
        assert_eq!(read(query), Ok(question));
        let bare = Question { command: 7, version: 1, ..Question::default() };
        assert_eq!(read("command=7"), Ok(bare));
    }

    #[test]
    fn what_is_wrong_with_it_is_told() {
        let cases = [
            ("", "which call? write command=0x0201"),
            ("command=0xzz", "command is `0xzz`; write a number"),
            ("command=-1", "command is `-1`"),
            ("command=%2B1", "command is `+1`"),
            ("command=4294967296", "command is `4294967296`"),
            ("command=1&version=x", "version is `x`"),
            ("command=1&user=", "user has 0 bytes"),
            ("command=1&session=7", "32 hexadecimal digits"),
            ("command=1&address=here", "address is `here`"),
            ("command=1&command=2", "`command` stands there twice"),
            ("command=1&colour=red", "`colour` is not known here"),
        ];
        for (query, why) in cases {
            let told = read(query).unwrap_err();
            assert!(told.contains(why), "{query}: {told}");
        }
        let many = format!("command=1{}", "&role=r".repeat(17));
        assert_eq!(read(&many), Err("17 roles; write 16 or fewer".to_owned()));
    }
}
