//! What `--help` says.

pub(super) const MAIN: &str = "\
moorgate - the front door of an instant-messaging system

Clients keep one TCP connection to it; it knows who they are, and carries their
requests to backend services and the answers back.

Usage:
  moorgate serve --dev                 try it out: no file needed
  moorgate serve -c moorgate.toml      run it
  moorgate check moorgate.toml         find mistakes in a configuration
  moorgate token issue --dev --user U  make an access token
  moorgate token inspect TOKEN         look into one
  moorgate operator kick --user U      end sessions, revoke tokens, see bans
  moorgate operator endpoints          see where the services are; shift canaries
  moorgate explain --command 0x0201    say where a call goes, and why

  moorgate COMMAND --help              more about serve, check, token, operator,
                                       explain
  moorgate --version

Exit codes: 0 it is done, 1 it failed, 2 the command line is not understood.

New here? Run `moorgate serve --dev`: it prints what to try next. The file
moorgate.toml of the source tree is a configuration with every key explained.
";

pub(super) const SERVE: &str = "\
moorgate serve - run the gateway until SIGTERM or SIGINT (Ctrl-C)

Usage: moorgate serve (-c FILE | --dev) [--listen ADDR] [--admin-listen ADDR]
                      [--bench-listen ADDR]

  -c, --config FILE     the configuration; `moorgate check FILE` finds mistakes
      --dev             no file: clients on 127.0.0.1:7000, the operator on
                        127.0.0.1:7001, echo, accounts and a chat inside, a
                        secret that everybody knows; on loopback only
      --listen ADDR     listen for clients here, as 127.0.0.1:7000, and nowhere
                        else; port 0 lets the system choose
      --admin-listen ADDR
                        answer the operator here: /livez, /readyz, /metrics
      --bench-listen ADDR
                        with --dev: where moorgate-bench listens as a service
                        in its modes push, resume and storm (127.0.0.1:7003);
                        with port 0 a port is reserved and printed

Under systemd it tells the service manager when it is ready and how it is, feeds
its watchdog, and takes the sockets and credentials that it is handed: see
tools/systemd/README.md of the source tree.

It says on standard error where it listens. The first signal drains: clients are
told, requests in flight finish, then it ends with exit code 0. A second signal
ends it at once. The variable RUST_LOG (error, warn, info, debug, trace) sets how
much it says; one that is wrong is a warning.
";

pub(super) const CHECK: &str = "\
moorgate check - find mistakes in a configuration

Usage: moorgate check FILE

Prints what the file asks for (exit code 0), or every mistake with its line and
what would be right (exit code 1). Reads the secrets and the files of endpoints
too, and goes as far as `serve` does before it opens a port.
";

pub(super) const TOKEN: &str = "\
moorgate token - make or look into access tokens (JWT, HS256)

Usage:
  moorgate token issue --user ID [OPTION]... SECRET
  moorgate token inspect TOKEN [SECRET]

SECRET is one of
  --dev                 the development secret, for `serve --dev`
  --secret-file FILE    the content of a file, without white space at its end
  --secret-env NAME     a variable of the environment

Options of issue
  --user ID             whose token it is
  --role R              a role of the user; may be repeated
  --device D            binds the token to one device
  --ttl TIME            how long it is good, as 90s, 1h or 7days (default 1h)
  --key-id K            the id of the key in the configuration (default `default`;
                        with --dev `dev`)
  --issuer I            as the configuration's auth.issuer asks for
  --audience A          as the configuration's auth.audience asks for

Each token has an id of its own (the claim jti), so that a logout, or
`moorgate operator revoke --token ID`, revokes that one alone.

inspect shows what a token says, and with a SECRET whether its signature and its
times are good (exit code 1: they are not). TOKEN may be - for standard input.

Example:
  moorgate token issue --dev --user alice | moorgate token inspect - --dev
";

pub(super) const OPERATOR: &str = "\
moorgate operator - ask a running gateway

Usage:
  moorgate operator kick (--user U | --session HEX) [--message TEXT]
  moorgate operator revoke (--user U | --token ID)
  moorgate operator bans
  moorgate operator ban --address A --for TIME
  moorgate operator unban (--address A | --user U)
  moorgate operator endpoints
  moorgate operator canary SERVICE SHARE

kick ends sessions, revoke refuses access tokens from now on (all that a user has
by now, or one by its id, the claim jti) and ends their sessions, ban keeps an IP
address out for a TIME such as 90s, 10m or 2days.

endpoints lists where the services are: what the sources say of each instance
(standing in, doubted or leaving), its ready links, for how much longer it is
ejected, the calls that it was sent, and how many of them failed: failure (it said
so), busy, timeout, lost (the link broke). canary changes the share of users that
the canary of a service gets, as 5% or 0.25%, until the gateway starts again: more
only adds users, less only takes some away.

      --admin ADDR      the gateway's operator address, [admin] in its
                        configuration (default 127.0.0.1:7001)

It prints what has changed, a line of JSON; endpoints prints a table. Exit code 1:
nothing was done (no such session to kick, no such ban to lift, it was refused),
and standard error says why. The same by HTTP, for scripts, where a count of 0 is
no error:
  curl -X POST 'http://127.0.0.1:7001/kick?user=alice'
";

pub(super) const EXPLAIN: &str = "\
moorgate explain - say where a call goes, and why

Usage:
  moorgate explain --command C [--version N] [--user U] [OPTION]... [--admin ADDR]
  moorgate explain --log FILE --request SESSION:SEQ

The first asks a running gateway what it would do with a call now: by which route,
to which service, and what each of its workers would choose: the endpoint, the
rule, what all candidates would cost, who is ejected or doubted, panic, canary,
what is tried again, and what each source says of each endpoint. Nothing is sent
to the service. Every word about the caller matters only where something goes by
it; without --user the caller is anonymous.

      --command C       the command, as 0x0201 or 513
      --version N       its version (default 1)
      --user U          the user's id
      --session HEX     the session, as the access log has it
      --role R          a role of the user; may be repeated
      --application A   the application
      --app-version V   its version
      --platform P      the platform
      --device D        the device
      --address IP      the client's address
      --admin ADDR      the gateway's operator address, [admin] in its
                        configuration (default 127.0.0.1:7001)

The second looks a request up in an access log and says in words what its line
says in short, its why= above all.

      --log FILE        the access log; - reads lines from standard input, and
                        explains each when there is no --request
      --request S:N     the request: the line's session and seq

Exit code 1: there is no such route, no such line, or no answer; it says why.
";
