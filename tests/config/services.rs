//! What governs a service's endpoints: what is read, and what is said about mistakes.

use crate::Directory;
use crate::mistakes::Change::{End, Line};
use crate::mistakes::{Cases, GOOD, check};
use moorgate::routing::{Balance, HashBy, HelloField, Prefer, Priority};
use std::time::Duration;

const CHOICE: Cases = &[
    (
        Line(11, "key_file = \"echo.key\"\nhash_by = \"user\""),
        &[
            "12: service.hash_by: only balance = \"consistent_hash\" goes by it; write that, or leave this out",
        ],
    ),
    (
        Line(11, "key_file = \"echo.key\"\nbalance = \"consistent_hash\"\nhash_by = \"name\""),
        &[
            "13: service.hash_by: `name` is not known; write one of \"user\", \"session\", \"device\", \"address\", \"application\"",
        ],
    ),
    (
        Line(11, "key_file = \"echo.key\"\nprefer_zone = \"a\"\nprefer_tag = \"b\""),
        &["13: service.prefer_tag: there is a prefer_zone too; leave one of them out"],
    ),
    (
        Line(11, "key_file = \"echo.key\"\nprefer_zone = \"a b\""),
        &["12: service.prefer_zone: `a b` cannot be one; write 1 to 64 bytes without spaces and commas"],
    ),
    (
        End("priority = \"urgent\""),
        &["15: route.priority: `urgent` is not known; write one of \"low\", \"normal\", \"high\""],
    ),
    (
        End("hedge = true"),
        &[
            "15: route.hedge: a call may run twice then; write idempotent = true and order = \"none\" too, or leave this out",
        ],
    ),
    (
        End("hedge = true\nidempotent = true\norder = \"session\""),
        &[
            "15: route.hedge: a call may run twice then; write idempotent = true and order = \"none\" too, or leave this out",
        ],
    ),
];

#[test]
fn what_is_wrong_with_a_choice_is_told() {
    check("choice", CHOICE);
}

const HEALTH: Cases = &[
    (
        End("[service.ejection]\nfailures = -1"),
        &["16: service.ejection.failures: -1 is out of bounds; write a number from 0 to 1000000"],
    ),
    (
        End("[service.ejection]\nsuccess = 50"),
        &["16: service.ejection.success: this is a number; write \"0%\" to \"100%\""],
    ),
    (
        End("[service.ejection]\npanic = \"101%\""),
        &[
            "16: service.ejection.panic: `101%` is no whole percentage within bounds; write \"0%\" to \"100%\"",
        ],
    ),
    (
        End("[service.ejection]\nwindow = \"50ms\""),
        &["16: service.ejection.window: `50ms` is out of bounds; write \"100ms\" to \"1h\""],
    ),
    (
        End("[service.ejection]\nfirst = \"2m\""),
        &[
            "16: service.ejection.longest is 1m and must not be below service.ejection.first, 2m; change one of them",
        ],
    ),
    (
        End("[service.ejection]\nterm = \"2m\""),
        &[
            "16: service.ejection.term: there is no such key here; there are: calls, failures, first, longest, panic, share, success, window",
        ],
    ),
    (
        End("[service.slow_start]\nfirst = \"0%\""),
        &[
            "16: service.slow_start.first: `0%` is no whole percentage within bounds; write \"1%\" to \"100%\"",
        ],
    ),
    (
        End("[[service.ejection]]\nfirst = \"2s\""),
        &["15: service.ejection: this is a list; write [service.ejection]"],
    ),
];

#[test]
fn what_is_wrong_with_health_is_told() {
    check("health", HEALTH);
}

const LOAD: Cases = &[
    (
        End("[service.bounds]\noutstanding = 0"),
        &["16: service.bounds.outstanding: 0 is out of bounds; write a number from 1 to 1000000"],
    ),
    (
        End("[service.bounds]\nqueue_bytes = \"2 MB\""),
        &["16: service.bounds.queue_bytes: `2 MB` is not a size; write for example \"64 KiB\" or \"1 MiB\""],
    ),
    (
        End("[service.bounds]\nadaptive = true\nadaptive_max = 10"),
        &[
            "17: service.bounds.adaptive_max is 10 and must not be below service.bounds.adaptive_min, 20; change one of them",
        ],
    ),
    (
        End("[service.retry]\nattempts = 0"),
        &["16: service.retry.attempts: 0 is out of bounds; write a number from 1 to 10"],
    ),
    (
        End("[service.retry]\nbudget = \"20\""),
        &["16: service.retry.budget: `20` is no whole percentage within bounds; write \"0%\" to \"100%\""],
    ),
];

#[test]
fn what_is_wrong_with_bounds_and_retries_is_told() {
    check("load", LOAD);
}

const CANARY: Cases = &[
    (
        End("[service.canary]\nshare = \"5%\""),
        &["15: service.canary.tag: it is missing; write for example tag = \"canary\""],
    ),
    (
        End("[service.canary]\ntag = \"canary\"\nshare = \"5\""),
        &[
            "17: service.canary.share: `5` is no share; write \"0%\" to \"100%\", with two decimals at the most, as \"5%\" or \"0.25%\"",
        ],
    ),
    (
        End("[service.canary]\ntag = \"canary\"\nshare = 5"),
        &["17: service.canary.share: this is a number; write a share such as \"5%\""],
    ),
    (
        End("[service.canary]\ntag = \"a,b\""),
        &["16: service.canary.tag: `a,b` cannot be one; write 1 to 64 bytes without spaces and commas"],
    ),
    (
        End("[service.canary]\ntag = \"canary\"\nroles = [\"\"]"),
        &["17: service.canary.roles: a role has 0 bytes; write 1 to 64"],
    ),
    (
        End("[service.canary]\ntag = \"canary\"\nplatform = \"\""),
        &["17: service.canary.platform: this is empty; write what clients say, or leave it out"],
    ),
];

#[test]
fn what_is_wrong_with_a_canary_is_told() {
    check("canary", CANARY);
}

#[test]
fn what_is_written_is_in_the_settings() {
    let service = r#"endpoints = ["10.0.0.1:7100 weight=50 zone=eu-1 tags=canary", "10.0.0.2:7100"]
balance = "consistent_hash"
hash_by = "device"
prefer_tag = "fast"
key_file = "echo.key"
[service.ejection]
failures = 7
success = "60%"
first = "2s"
longest = "3m"
[service.slow_start]
time = "0s"
[service.bounds]
per_endpoint = 9
adaptive = true
adaptive_max = 100
[service.retry]
attempts = 3
budget = "10%"
[service.canary]
tag = "canary"
share = "0.25%"
roles = ["tester"]
platform = "ios"
application = "im-beta"
[[route]]
commands = 7
service = "chat"
idempotent = true
hedge = true
priority = "high""#;
    let text = GOOD.replace("endpoints = [\"10.0.0.1:7100\"]\nkey_file = \"echo.key\"", service);
    let settings = Directory::new("governed").parse(&text).unwrap();
    let route = settings.routes.find(7, 1).unwrap();
    assert!(route.hedge && route.priority == Priority::High);
    let service = &settings.services[0];
    let shown: Vec<String> = service.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.1:7100 weight=50 zone=eu-1 tags=canary", "10.0.0.2:7100"]);
    assert_eq!(settings.discovery.services[0].fixed, service.endpoints);
    let pool = &service.pool;
    assert_eq!((pool.balance, pool.hash_by), (Balance::ConsistentHash, HashBy::Device));
    assert_eq!(pool.prefer, Some(Prefer::Tag("fast".to_owned())));
    let ejection = &pool.ejection;
    assert_eq!((ejection.failures_max, ejection.success_percent_min, ejection.calls_min), (7, 60, 20));
    assert_eq!((ejection.term_min, ejection.term_max), (Duration::from_secs(2), Duration::from_secs(180)));
    assert_eq!((pool.slow_start.time, pool.slow_start.first_percent), (Duration::ZERO, 10));
    assert_eq!(pool.bounds.endpoint_outstanding_max, 9);
    let adaptive = pool.bounds.adaptive.unwrap();
    assert_eq!((adaptive.outstanding_min, adaptive.outstanding_max), (20, 100));
    assert_eq!((pool.retry.attempts_max, pool.retry.budget_percent, pool.retry.budget_per_s), (3, 10, 10));
    let canary = pool.canary.as_ref().unwrap();
    assert_eq!((canary.tag.as_str(), canary.share), ("canary", 25));
    assert_eq!(canary.roles, ["tester"]);
    let hello = [(HelloField::Application, "im-beta".to_owned()), (HelloField::Platform, "ios".to_owned())];
    assert_eq!(canary.hello, hello);
}
