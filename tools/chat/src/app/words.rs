//! Outcomes in words for users. What a gateway says for people who debug is not shown.

use moorgate_client::core::End;
use moorgate_client::{Answer, Code, Ending, Reason, Setback};

/// Why a request was not done.
pub(super) fn refusal(answer: &Answer) -> String {
    of_reason(answer.reason).map_or_else(|| of_code(answer.code).to_owned(), str::to_owned)
}

fn of_reason(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::NoRoute | Reason::NotSupported => "this gateway has no chat",
        Reason::VersionTooLow | Reason::VersionUnsupported => "this client is too old",
        Reason::RateLimited => "too much at once; try again in a while",
        Reason::Banned => "you are shut out for a while",
        Reason::NoEndpoint | Reason::EndpointLost | Reason::Draining => {
            "the service is not there at the moment"
        }
        Reason::GatewayOverloaded | Reason::ServiceOverloaded => "too busy; try again in a while",
        Reason::ConnectionLimit => "the gateway is full",
        Reason::Timeout => "no answer in time",
        Reason::PayloadTooLarge => "it is too long",
        Reason::RoleRequired => "you may not do that",
        Reason::LoginRequired => "you are not logged in",
        Reason::GrantMissing => "the gateway does not let the service do that",
        Reason::Shutdown => "the gateway went away",
        Reason::Rebalance => "another gateway has more room",
        Reason::TokenExpired => "your login has expired",
        Reason::TokenInvalid => "your login is not accepted any more",
        Reason::TokenRevoked => "your login was taken back",
        Reason::Kicked => "you were put out",
        Reason::LoggedOut => "you are logged out",
        Reason::Superseded => "you have come in from elsewhere",
        Reason::DeviceConflict => "you are here on another device",
        Reason::SessionLimit => "you are here too many times",
        Reason::SessionRefused => "you are not let in",
        Reason::ApplicationRefused => "this client is not let in",
        Reason::HeartbeatTimeout | Reason::WriteStalled | Reason::FrameTimeout => {
            "the connection was too slow"
        }
        _ => return None,
    })
}

fn of_code(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "it is not valid",
        Code::NotFound => "there is no such thing",
        Code::AlreadyExists => "it is there already",
        Code::PermissionDenied => "you may not do that",
        Code::Unauthenticated => "you are not logged in",
        Code::ResourceExhausted => "there is no room for it",
        Code::DeadlineExceeded => "no answer in time",
        Code::Unavailable => "not there at the moment",
        Code::Unimplemented => "this gateway cannot do that",
        _ => "something went wrong there",
    }
}

/// Why there is no session now.
pub(super) fn setback(why: &Setback) -> String {
    match why {
        Setback::NoAddress(_) => "no address to go to".to_owned(),
        // As the system says it, without its number.
        Setback::NotConnected(why) => why.split(" (os error").next().unwrap_or_default().to_lowercase(),
        Setback::NoToken(_) => "not logged in".to_owned(),
        Setback::GoneAway(reason) => of_reason(*reason).unwrap_or("the gateway went away").to_owned(),
        Setback::TokenChanged => "another login".to_owned(),
        Setback::Ended(end) => ended(end),
    }
}

fn ended(end: &End) -> String {
    match end {
        End::Error(error) => {
            let code = Code::from_wire(error.status);
            of_reason(error.reason()).unwrap_or_else(|| of_code(code)).to_owned()
        }
        End::Bye => "left".to_owned(),
        End::Lost => "the connection was lost".to_owned(),
        End::OpeningTimeout => "no answer".to_owned(),
        End::Silence => "the gateway is silent".to_owned(),
        End::Fault(_) => "that is no gateway of ours".to_owned(),
    }
}

/// Why the client has ended.
pub(super) fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Left => "left".to_owned(),
        Ending::Refused(error, _) => ended(&End::Error((**error).clone())),
        Ending::NoToken(_) => "not logged in".to_owned(),
        Ending::Broken => "this client has broken down".to_owned(),
    }
}
