//! What an operator asks for, checked and within bounds, and what comes of it.

use super::parameter::{bounded, ip_address, session_id, user_id};
use super::query::Query;
use super::question::{self, Question};
use super::shown::{EndpointShown, Explained};
use crate::base::ids::SessionId;
use crate::base::share::{parse_share, write_share};
use moorgate_proto::limits::{MESSAGE_BYTES, NAME_BYTES};
use serde_json::{Value, json};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// The shortest ban: times are told in whole seconds.
const BAN_MIN: Duration = Duration::from_secs(1);
/// The longest ban.
const BAN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Whose sessions are ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KickTarget {
    /// All of a user.
    User(String),
    /// One.
    Session(SessionId),
}

/// Which access tokens are refused from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevokeTarget {
    /// All that a user was given up to now.
    User(String),
    /// The one with this id, its `jti`.
    Token(String),
}

/// Who is kept out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BanTarget {
    /// Connections from an address; never an IPv4 address in IPv6's clothes.
    Address(IpAddr),
    /// An IPv6 network wider than 64 bits, and its bits.
    Network(Ipv6Addr, u8),
    /// A user.
    User(String),
}

/// What an operator asks for. Texts from outside are bounded; [`fmt::Display`] escapes them, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Ends sessions; their clients are told not to come back by themselves.
    Kick {
        /// Whose.
        target: KickTarget,
        /// For people who debug; at most [`MESSAGE_BYTES`].
        message: Option<String>,
    },
    /// Refuses tokens, and ends the sessions that they opened.
    Revoke(RevokeTarget),
    /// Lists the bans.
    Bans,
    /// Keeps an address out for a time.
    Ban {
        /// The address.
        address: IpAddr,
        /// For how long; whole seconds.
        time: Duration,
    },
    /// Lifts a ban before its time.
    Unban(BanTarget),
    /// Lists the endpoints of all services.
    Endpoints,
    /// Says where a call would go, and why.
    Explain(Box<Question>),
    /// Changes the share of users that a service's canary gets.
    Canary {
        /// The service.
        service: String,
        /// In hundredths of a percent.
        share: u32,
    },
}

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who is kept out.
    pub target: BanTarget,
    /// For how much longer.
    pub left: Duration,
    /// Why, in a word or two.
    pub reason: &'static str,
}

/// What has come of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Of a kick or a revocation: so many sessions end. None is no error.
    Sessions(u64),
    /// Of a ban, the lifting of one, or the revocation of one token: so many were made or lifted.
    Changed(u64),
    /// The bans. Whoever has very many gives the first of them, and counts all.
    Bans {
        /// Some or all of them.
        bans: Vec<Ban>,
        /// How many there are.
        total: u64,
    },
    /// The endpoints. Whoever has very many gives the first of them, and counts all.
    Endpoints {
        /// Some or all of them.
        endpoints: Vec<EndpointShown>,
        /// How many there are.
        total: u64,
        /// What is wrong with the search for them, a sentence each.
        notes: Vec<String>,
    },
    /// Why a call would go where it would go.
    Explained(Box<Explained>),
    /// The share of a canary, in hundredths of a percent.
    Share {
        /// What it was.
        before: u32,
        /// What it is.
        now: u32,
    },
}

/// Why an operation was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperateError {
    /// Too much is going on; it may go well in a moment.
    Busy,
    /// There is no room for another ban by an operator.
    Full,
    /// No route leads there.
    NoRoute {
        /// The command.
        command: u32,
        /// Its version.
        version: u32,
    },
    /// There is no such service.
    NoService {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The service has no canary.
    NoCanary {
        /// The service.
        service: String,
    },
}

impl fmt::Display for OperateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OperateError::Busy => f.write_str("the gateway is too busy; try again"),
            OperateError::Full => f.write_str(
                "there are as many bans by operators as there may be; lift one, or wait for an end",
            ),
            OperateError::NoRoute { command, version } => {
                write!(f, "no route leads to command {command:#06x} in version {version}; look at [[route]]")
            }
            OperateError::NoService { name, known } => {
                let name = name.escape_debug();
                write!(f, "there is no service `{name}`; there are: {}", known.join(", "))
            }
            OperateError::NoCanary { service } => {
                write!(f, "service `{service}` has no canary; write [service.canary] with a tag for it")
            }
        }
    }
}

impl std::error::Error for OperateError {}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| format!("\"{}\"", text.escape_default());
        match self {
            Operation::Kick { target, message } => {
                match target {
                    KickTarget::User(user) => write!(f, "kick user={}", quoted(user))?,
                    KickTarget::Session(session) => write!(f, "kick session={session}")?,
                }
                message.as_ref().map_or(Ok(()), |message| write!(f, " message={}", quoted(message)))
            }
            Operation::Revoke(RevokeTarget::User(user)) => write!(f, "revoke user={}", quoted(user)),
            Operation::Revoke(RevokeTarget::Token(token)) => write!(f, "revoke token={}", quoted(token)),
            Operation::Bans => f.write_str("bans"),
            Operation::Ban { address, time } => {
                write!(f, "ban address={address} for={}", humantime::format_duration(*time))
            }
            Operation::Unban(BanTarget::Address(address)) => write!(f, "unban address={address}"),
            Operation::Unban(BanTarget::Network(network, bits)) => {
                write!(f, "unban address={network}/{bits}")
            }
            Operation::Unban(BanTarget::User(user)) => write!(f, "unban user={}", quoted(user)),
            Operation::Endpoints => f.write_str("endpoints"),
            Operation::Explain(question) => write!(f, "explain command={:#06x}", question.command),
            Operation::Canary { service, share } => {
                write!(f, "canary service={} share={}", quoted(service), write_share(*share))
            }
        }
    }
}

impl Operation {
    /// Whether nothing is changed by it.
    pub fn is_reading(&self) -> bool {
        matches!(self, Operation::Bans | Operation::Endpoints | Operation::Explain(_))
    }
}

impl Outcome {
    /// As the operator reads it.
    pub(super) fn json(&self) -> Value {
        match self {
            Outcome::Sessions(count) => json!({ "sessions": count }),
            Outcome::Changed(count) => json!({ "changed": count }),
            Outcome::Bans { bans, total } => {
                let bans: Vec<Value> = bans.iter().map(Ban::json).collect();
                json!({ "total": total, "bans": bans })
            }
            Outcome::Endpoints { endpoints, total, notes } => {
                let endpoints: Vec<Value> = endpoints.iter().map(EndpointShown::json).collect();
                json!({ "total": total, "endpoints": endpoints, "notes": notes })
            }
            Outcome::Explained(explained) => explained.json(),
            Outcome::Share { before, now } => {
                json!({ "before": write_share(*before), "now": write_share(*now) })
            }
        }
    }
}

impl Ban {
    fn json(&self) -> Value {
        let (what, who) = match &self.target {
            BanTarget::Address(address) => ("address", address.to_string()),
            BanTarget::Network(network, bits) => ("address", format!("{network}/{bits}")),
            BanTarget::User(user) => ("user", user.clone()),
        };
        // A ban with a moment left is still one.
        let seconds = self.left.as_secs().saturating_add(u64::from(self.left.subsec_nanos() > 0));
        json!({ what: who, "seconds": seconds, "reason": self.reason })
    }
}

/// Reads the parameters of `/kick`.
pub(super) fn kick(mut query: Query) -> Result<Operation, String> {
    const RIGHT: &str = "user=U or session=HEX, and message=M if they are to know why";
    let (user, session) = (query.take("user"), query.take("session"));
    let message = query.take("message").map(|text| bounded("message", text, MESSAGE_BYTES)).transpose()?;
    query.finish(RIGHT)?;
    let target = match (user, session) {
        (Some(user), None) => KickTarget::User(user_id(user)?),
        (None, Some(session)) => KickTarget::Session(session_id(&session)?),
        _ => return Err(format!("whose sessions? write {RIGHT}")),
    };
    Ok(Operation::Kick { target, message })
}

/// Reads the parameters of `/revoke`.
pub(super) fn revoke(mut query: Query) -> Result<Operation, String> {
    const RIGHT: &str = "user=U or token=ID";
    let (user, token) = (query.take("user"), query.take("token"));
    query.finish(RIGHT)?;
    match (user, token) {
        (Some(user), None) => Ok(Operation::Revoke(RevokeTarget::User(user_id(user)?))),
        (None, Some(token)) => {
            Ok(Operation::Revoke(RevokeTarget::Token(bounded("token", token, NAME_BYTES)?)))
        }
        _ => Err(format!("which tokens? write {RIGHT}")),
    }
}

/// `/bans` has no parameters.
pub(super) fn bans(query: Query) -> Result<Operation, String> {
    query.finish("none").map(|()| Operation::Bans)
}

/// Reads the parameters of `/ban`.
pub(super) fn ban(mut query: Query) -> Result<Operation, String> {
    const RIGHT: &str = "address=A and for=TIME, as for=10m";
    let (address, time) = (query.take("address"), query.take("for"));
    query.finish(RIGHT)?;
    let (Some(address), Some(time)) = (address, time) else {
        return Err(format!("whom, and for how long? write {RIGHT}"));
    };
    Ok(Operation::Ban { address: ip_address(&address)?, time: ban_time(&time)? })
}

/// Reads the parameters of `/unban`.
pub(super) fn unban(mut query: Query) -> Result<Operation, String> {
    const RIGHT: &str = "address=A or user=U";
    let (address, user) = (query.take("address"), query.take("user"));
    query.finish(RIGHT)?;
    match (address, user) {
        (Some(address), None) => Ok(Operation::Unban(BanTarget::Address(ip_address(&address)?))),
        (None, Some(user)) => Ok(Operation::Unban(BanTarget::User(user_id(user)?))),
        _ => Err(format!("whose ban? write {RIGHT}")),
    }
}

/// `/endpoints` has no parameters.
pub(super) fn endpoints(query: Query) -> Result<Operation, String> {
    query.finish("none").map(|()| Operation::Endpoints)
}

/// Reads the parameters of `/explain`.
pub(super) fn explain(query: Query) -> Result<Operation, String> {
    question::read(query).map(|question| Operation::Explain(Box::new(question)))
}

/// Reads the parameters of `/canary`.
pub(super) fn canary(mut query: Query) -> Result<Operation, String> {
    const RIGHT: &str = "service=S and share=5%25, which is 5% encoded";
    let (service, share) = (query.take("service"), query.take("share"));
    query.finish(RIGHT)?;
    let (Some(service), Some(share)) = (service, share) else {
        return Err(format!("whose canary, and how much? write {RIGHT}"));
    };
    Ok(Operation::Canary { service: bounded("service", service, NAME_BYTES)?, share: parse_share(&share)? })
}

fn ban_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| (BAN_MIN..=BAN_MAX).contains(time));
    let time = time.ok_or_else(|| {
        let max = humantime::format_duration(BAN_MAX);
        format!("for is `{text}`; write a time from 1s to {max}, as 90s, 10m or 2days")
    })?;
    Ok(Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = fn(Query) -> Result<Operation, String>;

    fn read(read: Read, query: &str) -> Result<Operation, String> {
        read(Query::parse(query)?)
    }

    #[test]
    fn operations_are_read_from_their_parameters() {
        let kicked = |target, message: Option<&str>| {
            Ok(Operation::Kick { target, message: message.map(str::to_owned) })
        };
        let alice = || "alice".to_owned();
        assert_eq!(read(kick, "user=alice"), kicked(KickTarget::User(alice()), None));
        let why = read(kick, "message=go%20away&user=alice");
        assert_eq!(why, kicked(KickTarget::User(alice()), Some("go away")));
        let session = read(kick, "session=000000000000000000000000000000Ab");
        assert_eq!(session, kicked(KickTarget::Session(SessionId(171u128.to_be_bytes())), None));
        assert_eq!(read(revoke, "user=alice"), Ok(Operation::Revoke(RevokeTarget::User(alice()))));
        let token = Operation::Revoke(RevokeTarget::Token("t-1".to_owned()));
        assert_eq!(read(revoke, "token=t-1"), Ok(token));
        assert_eq!(read(bans, ""), Ok(Operation::Bans));
        let address: IpAddr = [192, 0, 2, 7].into();
        let banned = Operation::Ban { address, time: Duration::from_secs(600) };
        assert_eq!(read(ban, "address=192.0.2.7&for=10m"), Ok(banned.clone()));
        assert_eq!(read(ban, "address=::ffff:192.0.2.7&for=10m%20900ms"), Ok(banned));
        let lifted = Operation::Unban(BanTarget::Address("2001:db8::1".parse().unwrap()));
        assert_eq!(read(unban, "address=2001:db8::1"), Ok(lifted));
        assert_eq!(read(unban, "user=alice"), Ok(Operation::Unban(BanTarget::User(alice()))));
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_right() {
        let long = |name: &str, len: usize| format!("{name}={}", "x".repeat(len));
        let cases: [(Read, &str, &str); 18] = [
            (kick, "", "whose sessions? write user=U or session=HEX"),
            (kick, "user=a&session=000000000000000000000000000000ab", "whose sessions?"),
            (kick, "user=", "user has 0 bytes; write 1 to 128"),
            (kick, &long("user", 129), "user has 129 bytes"),
            (kick, "user=a&message=", "message has 0 bytes; write 1 to 256"),
            (kick, "user=a&token=b", "`token` is not known here"),
            (kick, "session=ab", "write the 32 hexadecimal digits"),
            (kick, "session=%2B0000000000000000000000000000ab0", "32 hexadecimal digits"),
            (revoke, "", "which tokens? write user=U or token=ID"),
            (revoke, &long("token", 65), "token has 65 bytes; write 1 to 64"),
            (bans, "user=a", "`user` is not known here; write none"),
            (ban, "address=192.0.2.7", "for how long?"),
            (ban, "address=192.0.2.7:80&for=10m", "without a port"),
            (ban, "address=alice&for=10m", "write an IP address"),
            (ban, "address=192.0.2.7&for=0s", "write a time from 1s to 1year"),
            (ban, "address=192.0.2.7&for=2years", "write a time from 1s"),
            (ban, "address=192.0.2.7&for=10", "as 90s, 10m or 2days"),
            (unban, "", "whose ban? write address=A or user=U"),
        ];
        for (parse, query, expected) in cases {
            let error = read(parse, query).unwrap_err();
            assert!(error.contains(expected), "{query}: {error}");
        }
    }

    #[test]
    fn a_log_line_stays_one_line() {
        let evil = "eve\" \nkick user=\"bob";
        let operation = Operation::Kick {
            target: KickTarget::User(evil.to_owned()),
            message: Some("\u{1b}[31m\u{2028}".to_owned()),
        };
        let line = operation.to_string();
        assert_eq!(line, r#"kick user="eve\" \nkick user=\"bob" message="\u{1b}[31m\u{2028}""#);
        for query in ["user=x%0Ay", "session=000000000000000000000000000000ab"] {
            assert!(
                read(kick, query)
                    .unwrap()
                    .to_string()
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() || byte == b' ')
            );
        }
        assert_eq!(
            read(ban, "address=192.0.2.7&for=90s").unwrap().to_string(),
            "ban address=192.0.2.7 for=1m 30s"
        );
    }

    #[test]
    fn outcomes_are_short_json() {
        assert_eq!(Outcome::Sessions(2).json().to_string(), r#"{"sessions":2}"#);
        assert_eq!(Outcome::Changed(1).json().to_string(), r#"{"changed":1}"#);
        let ban = |target, left| Ban { target, left, reason: "operator" };
        let bans = vec![
            ban(BanTarget::Address([192, 0, 2, 7].into()), Duration::from_millis(1)),
            ban(BanTarget::User("a\"b".to_owned()), Duration::from_secs(60)),
        ];
        let expected = r#"{"bans":[{"address":"192.0.2.7","reason":"operator","seconds":1},{"reason":"operator","seconds":60,"user":"a\"b"}],"total":7}"#;
        assert_eq!(Outcome::Bans { bans, total: 7 }.json().to_string(), expected);
    }
}
