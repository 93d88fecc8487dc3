//! Secrets come from files and from the environment, and are never shown.

use crate::mistakes::Change::{End, Line};
use crate::mistakes::{Cases, GOOD, check};
use crate::{Directory, SECRET, mistakes_of};

const SOURCES: Cases = &[
    (
        Line(7, "secret = \"correct-horse-battery-staple-and-some-more\""),
        &[
            r#"7: auth.key.secret: a secret does not stand in this file; write secret_file = "PATH", secret_env = "NAME" or secret_credential = "NAME""#,
        ],
    ),
    (
        Line(7, "secret_file = \"missing.secret\""),
        &[
            "7: auth.key.secret_file: DIR/missing.secret cannot be read: No such file or directory (os error 2); make one: head -c 32 /dev/urandom | base64 > DIR/missing.secret",
        ],
    ),
    (
        Line(7, "secret_file = \"short.secret\""),
        &[
            "7: auth.key.secret_file: the secret of key `a` has 8 bytes; HS256 needs at least 32; make one: head -c 32 /dev/urandom | base64 > DIR/short.secret",
        ],
    ),
    (
        Line(7, "secret_env = \"MOORGATE_UNSET\""),
        &["7: auth.key.secret_env: the environment has no variable MOORGATE_UNSET with a text; set it"],
    ),
    (
        Line(7, "secret_env = \"MOORGATE_SHORT\""),
        &[
            "7: auth.key.secret_env: the secret of key `a` has 8 bytes; HS256 needs at least 32; set MOORGATE_SHORT to a longer one",
        ],
    ),
    (
        Line(7, "secret_env = \"correct-horse-battery-staple-and-some-more\""),
        &["7: auth.key.secret_env: this is no name of a variable; write one of letters, digits and _"],
    ),
    (
        Line(7, "secret_file = \"access.secret\"\nsecret_env = \"MOORGATE_ACCESS_SECRET\""),
        &["8: auth.key.secret_env: there is a secret_file too; leave one of them out"],
    ),
    (
        Line(7, ""),
        &[
            r#"5: auth.key.secret_file: it is missing; write secret_file = "PATH", secret_env = "NAME" or secret_credential = "NAME""#,
        ],
    ),
    (
        Line(7, "secret_credential = \"missing.secret\""),
        &[
            "7: auth.key.secret_credential: there is no credential of this name; there are: access.secret, echo.key, short.secret; write LoadCredential=NAME:PATH into the unit, with this name",
        ],
    ),
    (
        Line(7, "secret_credential = \"short.secret\""),
        &[
            "7: auth.key.secret_credential: the secret of key `a` has 8 bytes; HS256 needs at least 32; make one: head -c 32 /dev/urandom | base64 > PATH, with the PATH of its LoadCredential= in the unit",
        ],
    ),
    (
        Line(7, "secret_credential = \"../access.secret\""),
        &[
            "7: auth.key.secret_credential: this is no name of a credential; write one of 1 to 64 letters, digits and -_.",
        ],
    ),
    (
        Line(7, "secret_credential = \"..\""),
        &[
            "7: auth.key.secret_credential: this is no name of a credential; write one of 1 to 64 letters, digits and -_.",
        ],
    ),
    (
        Line(7, "secret_env = \"MOORGATE_ACCESS_SECRET\"\nsecret_credential = \"access.secret\""),
        &["8: auth.key.secret_credential: there is a secret_env too; leave one of them out"],
    ),
    (
        Line(7, "secret_credential = 7"),
        &["7: auth.key.secret_credential: this is a number; write a text in quotes"],
    ),
    (Line(6, ""), &[r#"5: auth.key.id: it is missing; write for example id = "2026-01""#]),
    (Line(6, "id = \"\""), &["6: auth.key.id: it must have 1 to 64 bytes"]),
    (
        End("[[auth.key]]\nid = \"a\"\nsecret_file = \"access.secret\""),
        &["16: auth.key.id: another key is called `a` too; choose another id"],
    ),
    (
        End("[auth]\nleeway = \"soon\""),
        &[r#"16: auth.leeway: `soon` is not a time; write for example "250ms", "30s" or "5m""#],
    ),
    (End("[auth]\nleeway = \"1day\""), &[r#"16: auth.leeway: `1day` is out of bounds; write "0s" to "1h""#]),
    (
        Line(11, "key = \"correct-horse-battery-staple-and-some-more\""),
        &[
            r#"11: service.key: a secret does not stand in this file; write key_file = "PATH", key_env = "NAME" or key_credential = "NAME""#,
        ],
    ),
    (
        Line(11, "key_file = \"missing.key\""),
        &[
            "11: service.key_file: DIR/missing.key cannot be read: No such file or directory (os error 2); make one: head -c 32 /dev/urandom | base64 > DIR/missing.key",
        ],
    ),
    (
        Line(11, "key_file = \"short.secret\""),
        &[
            "11: service.key_file: the key has 8 bytes and needs at least 16; make one: head -c 32 /dev/urandom | base64 > DIR/short.secret",
        ],
    ),
    (
        Line(11, "key_env = \"MOORGATE_UNSET\""),
        &["11: service.key_env: the environment has no variable MOORGATE_UNSET with a text; set it"],
    ),
    (
        Line(11, ""),
        &[
            r#"8: service.key_file: it is missing; write key_file = "PATH", key_env = "NAME" or key_credential = "NAME", or without_proofs = true where nobody else can reach its endpoints"#,
        ],
    ),
    (
        Line(11, "key_file = \"echo.key\"\nwithout_proofs = true"),
        &["12: service.without_proofs: there is a key; leave one of them out"],
    ),
];

#[test]
fn what_is_wrong_with_a_secret_is_told() {
    check("sources", SOURCES);
}

#[test]
fn a_credential_is_a_file_of_the_service_manager() {
    let directory = Directory::new("credentials");
    let from_credentials = GOOD
        .replace("secret_file = \"access.secret\"", "secret_credential = \"access.secret\"")
        .replace("key_file = \"echo.key\"", "key_credential = \"echo.key\"");
    let (credentials, files) = (directory.parse(&from_credentials).unwrap(), directory.parse(GOOD).unwrap());
    assert!(credentials.services[0].key.is_some());
    assert!(credentials.authority.keys.ids().eq(["a"]));
    assert_eq!(format!("{credentials:?}"), format!("{files:?}"));
    // Without a service manager.
    let unset = "there are no credentials, CREDENTIALS_DIRECTORY is not set; write LoadCredential=NAME:PATH into the \
                 unit, with this name; or set it to a directory with a file of this name";
    let expected = ["7: auth.key.secret_credential", "11: service.key_credential"];
    assert_eq!(mistakes_of(&from_credentials), expected.map(|key| format!("gate.toml:{key}: {unset}")));
}

#[test]
fn secrets_appear_neither_in_settings_nor_in_errors() {
    let directory = Directory::new("secrecy");
    let is_silent = |shown: &str| !shown.contains(SECRET) && !shown.contains(&SECRET[..12]);
    let settings = directory.parse(GOOD).unwrap();
    assert!(is_silent(&format!("{settings:?} {settings:#?}")));
    let from_environment = GOOD
        .replace("secret_file = \"access.secret\"", "secret_env = \"MOORGATE_ACCESS_SECRET\"")
        .replace("key_file = \"echo.key\"", "key_env = \"MOORGATE_ECHO_KEY\"");
    assert!(is_silent(&format!("{:#?}", directory.parse(&from_environment).unwrap())));
    // Written where they do not belong, in every way that one might.
    let places = [
        (7, ["secret", "secret_env", "secret_credential", "secrets"]),
        (11, ["key", "key_env", "key_credential", "keys"]),
    ];
    for (line, keys) in places {
        for key in keys {
            for quote in ["\"", "'", "", "\"\"\"", "\"\n", "[\""] {
                let text: Vec<String> = GOOD
                    .lines()
                    .enumerate()
                    .map(|(at, old)| {
                        if at + 1 == line {
                            format!("{key} = {quote}{SECRET}{quote}")
                        } else {
                            old.to_owned()
                        }
                    })
                    .collect();
                let error = directory.parse(&text.join("\n")).unwrap_err();
                assert!(is_silent(&format!("{error} {error:?}")), "{key} {quote}: {error}");
            }
        }
    }
}
