//! What `--help` says.

pub(super) const MAIN: &str = "\
moorgate - the front door of an instant-messaging system

Clients keep one TCP connection to it; it knows who they are, and carries their
requests to backend services.

Usage:
  moorgate serve --dev                 try it out: no file needed
  moorgate serve -c moorgate.toml      run it
  moorgate check moorgate.toml         find mistakes in a configuration
  moorgate token issue --dev --user U  make an access token
  moorgate token inspect TOKEN         look into one

Each command has a --help of its own. Also: --version.
";

pub(super) const SERVE: &str = "\
moorgate serve - run the gateway until SIGTERM or SIGINT

Usage: moorgate serve (-c FILE | --dev) [--listen ADDR] [--admin-listen ADDR]

  -c, --config FILE     the configuration
      --dev             no file: clients on 127.0.0.1:7000, the operator on
                        127.0.0.1:7001, an echo service inside, a signing secret
                        that everybody knows; listens on loopback only
      --listen ADDR     listen for clients here instead, as 127.0.0.1:7000
      --admin-listen ADDR
                        answer the operator here instead

The first SIGTERM drains: clients are told, requests in flight finish. A second
one ends it at once. The variable RUST_LOG sets the level of diagnostics.
";

pub(super) const CHECK: &str = "\
moorgate check - find mistakes in a configuration

Usage: moorgate check FILE

Prints what the file asks for, or every mistake with its line. Reads the secrets
too. Exit code 1: there are mistakes.
";

pub(super) const TOKEN: &str = "\
moorgate token - make or look into access tokens (JWT, HS256)

Usage:
  moorgate token issue --user ID [--role R]... [--device D] [--ttl 1h]
                       [--issuer I] [--audience A] [--key-id K] SECRET
  moorgate token inspect TOKEN [SECRET]

SECRET is one of
  --dev                 the development secret, for `serve --dev`
  --secret-file FILE    the content of a file, without its last line feed
  --secret-env NAME     a variable of the environment
";
