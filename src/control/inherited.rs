//! Sockets that the service manager has opened and hands over: systemd's socket activation.
//!
//! They come as descriptors 3 and up; `LISTEN_FDS` says how many, `LISTEN_FDNAMES` what they are called, `LISTEN_PID`
//! for whom they are. Turning a number into a socket that is owned is unsafe, since nobody can prove that nobody else
//! owns it; the crate listenfd does that behind a safe call, once for each descriptor, checks that it is a TCP socket
//! and marks it close-on-exec. What this module adds is that each is a *listening* socket with a name, and that all of
//! them are claimed: a socket whose connections nobody accepts is a mistake of the deployment.
//!
//! [`Inherited::take`] comes before everything else in the process: before a thread is started, since listenfd changes
//! the environment so that nobody takes the sockets twice, and before a descriptor is opened that could be mistaken for
//! one of them.

use super::Environment;
use listenfd::ListenFd;
use socket2::{Protocol, SockRef};
use std::fmt;
use std::io;
use std::net::TcpListener;

/// No service manager hands over more.
const SOCKETS_MAX: usize = 1024;

/// Why sockets cannot be inherited.
#[derive(Debug)]
pub enum InheritError {
    /// A variable of the environment says what makes no sense.
    Environment {
        /// Its name.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What would be right.
        right: String,
    },
    /// A descriptor is not what it should be.
    NotListening {
        /// The name of the socket.
        name: String,
        /// What it is not.
        what: String,
    },
    /// No socket has the name that a listener asks for.
    Missing {
        /// The name.
        name: String,
        /// The names that there are.
        names: Vec<String>,
        /// For which process there are some, as `LISTEN_PID` says it, when it is another one.
        meant_for: Option<String>,
    },
    /// Several sockets have a name of which one is asked for.
    Several {
        /// The name.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// No listener asks for these.
    Unclaimed(Vec<String>),
}

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritError::Environment { variable, value, right } => {
                write!(f, "{variable} is `{}` and must be {right}", value.escape_debug())
            }
            InheritError::NotListening { name, what } => write!(
                f,
                "the socket `{name}` of the service manager is no listening TCP socket: {what}; write \
                 ListenStream=ADDRESS:PORT and Accept=no into its socket unit"
            ),
            InheritError::Missing { name, meant_for: Some(meant_for), .. } => write!(
                f,
                "the sockets of the service manager are for process {} (LISTEN_PID), and this is process {}, so \
                 `{name}` is missing; a script that starts the gateway must do it with exec",
                meant_for.escape_debug(),
                std::process::id()
            ),
            InheritError::Missing { name, names, .. } if names.is_empty() => write!(
                f,
                "the service manager hands over no socket, and `{name}` is asked for; start the socket unit, or \
                 write an address in place of socket_name"
            ),
            InheritError::Missing { name, names, .. } => write!(
                f,
                "the service manager hands over no socket `{name}`; there are: {}; write \
                 FileDescriptorName={name} into its socket unit",
                names.join(", ")
            ),
            InheritError::Several { name, count } => write!(
                f,
                "the service manager hands over {count} sockets `{name}`, and one is asked for; write one \
                 ListenStream= into its socket unit"
            ),
            InheritError::Unclaimed(names) => write!(
                f,
                "nobody would accept from these sockets of the service manager: {}; write socket_name = \"NAME\" into \
                 the [[listener]] that they are for, or stop the socket unit",
                names.join(", ")
            ),
        }
    }
}

impl std::error::Error for InheritError {}

/// The sockets that were handed over and that nobody has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(String, TcpListener)>,
    /// Of all that were handed over.
    names: Vec<String>,
    /// The process for which there are some, when it is another one.
    meant_for: Option<String>,
}

impl Inherited {
    /// Takes what this process is handed; none when it is handed none. See the module for when to call it.
    ///
    /// # Errors
    /// [`InheritError`] when the environment makes no sense, or a descriptor is not what it should be.
    pub fn take(environment: Environment<'_>) -> Result<Inherited, InheritError> {
        let names = names(environment, std::process::id())?;
        if names.is_empty() {
            return Ok(Inherited {
                meant_for: another(environment, std::process::id()),
                ..Inherited::default()
            });
        }
        let mut descriptors = ListenFd::from_env();
        let sockets: Result<Vec<_>, _> = names
            .iter()
            .enumerate()
            .map(|(at, name)| match checked(&mut descriptors, at) {
                Ok(socket) => Ok((name.clone(), socket)),
                Err(error) => Err(InheritError::NotListening { name: name.clone(), what: error.to_string() }),
            })
            .collect();
        Ok(Inherited { sockets: sockets?, names, meant_for: None })
    }

    /// All sockets of this name; they do not block.
    ///
    /// # Errors
    /// [`InheritError::Missing`] when there is none.
    pub fn claim(&mut self, name: &str) -> Result<Vec<TcpListener>, InheritError> {
        let claimed: Vec<TcpListener> =
            self.sockets.extract_if(.., |(other, _)| other == name).map(|(_, socket)| socket).collect();
        if claimed.is_empty() {
            let (names, meant_for) = (self.names.clone(), self.meant_for.clone());
            return Err(InheritError::Missing { name: name.to_owned(), names, meant_for });
        }
        Ok(claimed)
    }

    /// The one socket of this name; it does not block.
    ///
    /// # Errors
    /// [`InheritError::Missing`] when there is none, [`InheritError::Several`] when there are more.
    pub fn claim_one(&mut self, name: &str) -> Result<TcpListener, InheritError> {
        let mut claimed = self.claim(name)?;
        match claimed.pop() {
            Some(socket) if claimed.is_empty() => Ok(socket),
            _ => {
                let count = claimed.len().saturating_add(1);
                Err(InheritError::Several { name: name.to_owned(), count })
            }
        }
    }

    /// Everybody has claimed theirs.
    ///
    /// # Errors
    /// [`InheritError::Unclaimed`] when something is left.
    pub fn finish(self) -> Result<(), InheritError> {
        if self.sockets.is_empty() {
            return Ok(());
        }
        Err(InheritError::Unclaimed(self.sockets.into_iter().map(|(name, _)| name).collect()))
    }
}

/// For which other process there are sockets.
fn another(environment: Environment<'_>, pid: u32) -> Option<String> {
    let count = environment("LISTEN_FDS")?.parse::<usize>().ok()?;
    environment("LISTEN_PID").filter(|meant| count > 0 && *meant != pid.to_string())
}

/// The names of what this process is handed, in the order of the descriptors.
fn names(environment: Environment<'_>, pid: u32) -> Result<Vec<String>, InheritError> {
    let wrong = |variable, value: &str, right: String| {
        Err(InheritError::Environment { variable, value: value.to_owned(), right })
    };
    // What was meant for the process that started this one is none of ours.
    if environment("LISTEN_PID") != Some(pid.to_string()) {
        return Ok(Vec::new());
    }
    let Some(count) = environment("LISTEN_FDS") else { return Ok(Vec::new()) };
    let Some(sockets) = count.parse::<usize>().ok().filter(|count| *count <= SOCKETS_MAX) else {
        return wrong("LISTEN_FDS", &count, format!("a number from 0 to {SOCKETS_MAX}"));
    };
    let Some(list) = environment("LISTEN_FDNAMES") else {
        return Ok(vec!["unknown".to_owned(); sockets]);
    };
    let names: Vec<String> = list.split(':').map(str::to_owned).collect();
    if sockets > 0 && names.len() != sockets {
        let right = format!("as many names as LISTEN_FDS says, {sockets}, with colons between them");
        return wrong("LISTEN_FDNAMES", &list, right);
    }
    Ok(names.into_iter().take(sockets).collect())
}

fn checked(descriptors: &mut ListenFd, at: usize) -> io::Result<TcpListener> {
    let socket = descriptors.take_tcp_listener(at)?;
    let socket = socket.ok_or_else(|| io::Error::other("it is not there"))?;
    let view = SockRef::from(&socket);
    if view.protocol()? != Some(Protocol::TCP) {
        return Err(io::Error::other("it speaks another protocol"));
    }
    if !view.is_listener()? {
        return Err(io::Error::other("it does not listen"));
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn names_of(variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let environment = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        names(&environment, 42).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_read_as_the_service_manager_writes_them() {
        let pid = ("LISTEN_PID", "42");
        assert_eq!(names_of(&[]).unwrap(), [""; 0]);
        assert_eq!(names_of(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "43")]).unwrap(), [""; 0]);
        assert_eq!(names_of(&[("LISTEN_FDS", "1")]).unwrap(), [""; 0], "for whom is not known");
        assert_eq!(names_of(&[pid, ("LISTEN_FDS", "0"), ("LISTEN_FDNAMES", "")]).unwrap(), [""; 0]);
        assert_eq!(names_of(&[pid, ("LISTEN_FDS", "2")]).unwrap(), ["unknown", "unknown"]);
        let two = names_of(&[pid, ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "clients:operator")]);
        assert_eq!(two.unwrap(), ["clients", "operator"]);
    }

    #[test]
    fn an_environment_that_makes_no_sense_is_told() {
        let pid = ("LISTEN_PID", "42");
        for count in ["-1", "many", "1025", "99999999999999999999"] {
            let error = names_of(&[pid, ("LISTEN_FDS", count)]).unwrap_err();
            assert_eq!(error, format!("LISTEN_FDS is `{count}` and must be a number from 0 to 1024"));
        }
        let error = names_of(&[pid, ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "clients")]).unwrap_err();
        assert_eq!(
            error,
            "LISTEN_FDNAMES is `clients` and must be as many names as LISTEN_FDS says, 2, with colons between them"
        );
    }

    #[test]
    fn sockets_are_claimed_by_name_and_none_is_forgotten() {
        let socket = || TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let names = ["clients", "operator", "clients", "two", "two"].map(str::to_owned);
        let sockets = names.iter().map(|name| (name.clone(), socket())).collect();
        let mut inherited = Inherited { sockets, names: names.to_vec(), meant_for: None };
        assert_eq!(inherited.claim("clients").unwrap().len(), 2);
        let twice = inherited.claim("clients").unwrap_err().to_string();
        assert!(
            twice.contains("no socket `clients`; there are: clients, operator, clients, two, two;"),
            "{twice}"
        );
        assert!(inherited.claim_one("two").unwrap_err().to_string().contains("hands over 2 sockets `two`"));
        let mut one = Inherited { sockets: vec![("one".to_owned(), socket())], ..Inherited::default() };
        assert!(one.claim_one("one").is_ok() && one.claim_one("one").is_err());
        let error = inherited.finish().unwrap_err().to_string();
        assert!(error.contains("nobody would accept from these") && error.contains(": operator;"), "{error}");
        let none = Inherited::default().claim("clients").unwrap_err().to_string();
        assert!(none.contains("hands over no socket, and `clients` is asked for"), "{none}");
        assert!(Inherited::default().finish().is_ok());
    }
}
