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

  moorgate COMMAND --help              more about serve, check or token
  moorgate --version

Exit codes: 0 it is done, 1 it failed, 2 the command line is not understood.

New here? Run `moorgate serve --dev`: it prints what to try next. The file
moorgate.toml of the source tree is a configuration with every key explained.
";

pub(super) const SERVE: &str = "\
moorgate serve - run the gateway until SIGTERM or SIGINT (Ctrl-C)

Usage: moorgate serve (-c FILE | --dev) [--listen ADDR] [--admin-listen ADDR]

  -c, --config FILE     the configuration; `moorgate check FILE` finds mistakes
      --dev             no file: clients on 127.0.0.1:7000, the operator on
                        127.0.0.1:7001, an echo service inside, a signing secret
                        that everybody knows; listens on loopback only
      --listen ADDR     listen for clients here, as 127.0.0.1:7000, and nowhere
                        else; port 0 lets the system choose
      --admin-listen ADDR
                        answer the operator here: /livez, /readyz, /metrics

It says on standard error where it listens. The first signal drains: clients are
told, requests in flight finish, then it ends with exit code 0. A second signal
ends it at once. The variable RUST_LOG (error, warn, info, debug, trace) sets how
much it says.
";

pub(super) const CHECK: &str = "\
moorgate check - find mistakes in a configuration

Usage: moorgate check FILE

Prints what the file asks for (exit code 0), or every mistake with its line and
what would be right (exit code 1). Reads the secrets too, as `serve` would; opens
no port.
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

inspect shows what a token says, and with a SECRET whether its signature and its
times are good (exit code 1: they are not). TOKEN may be - for standard input.

Example:
  moorgate token issue --dev --user alice | moorgate token inspect - --dev
";
