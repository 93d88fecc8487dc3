//! The outcome of a request: a [`Code`], with the numbers and names of `google.rpc.Code`.
//!
//! Source: <https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto>.

macro_rules! codes {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// How a request ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[allow(missing_docs)]
        pub enum Code {
            $($name = $number,)*
        }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The code of a number on the wire; numbers that do not exist count as [`Code::Unknown`].
            pub fn from_wire(number: i32) -> Code {
                match number {
                    $($number => Code::$name,)*
                    _ => Code::Unknown,
                }
            }

            /// The name in `google.rpc.Code`, as it stands in logs and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Code::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    Ok = 0 "OK",
    Cancelled = 1 "CANCELLED",
    Unknown = 2 "UNKNOWN",
    InvalidArgument = 3 "INVALID_ARGUMENT",
    DeadlineExceeded = 4 "DEADLINE_EXCEEDED",
    NotFound = 5 "NOT_FOUND",
    AlreadyExists = 6 "ALREADY_EXISTS",
    PermissionDenied = 7 "PERMISSION_DENIED",
    ResourceExhausted = 8 "RESOURCE_EXHAUSTED",
    FailedPrecondition = 9 "FAILED_PRECONDITION",
    Aborted = 10 "ABORTED",
    OutOfRange = 11 "OUT_OF_RANGE",
    Unimplemented = 12 "UNIMPLEMENTED",
    Internal = 13 "INTERNAL",
    Unavailable = 14 "UNAVAILABLE",
    DataLoss = 15 "DATA_LOSS",
    Unauthenticated = 16 "UNAUTHENTICATED",
}

impl Code {
    /// The number on the wire.
    pub fn to_wire(self) -> i32 {
        self as i32
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    // spec: S-1, S-2
    #[test]
    fn numbers_and_names_go_round() {
        for code in Code::ALL {
            assert_eq!(Code::from_wire(code.to_wire()), *code);
        }
        assert_eq!(Code::from_wire(99), Code::Unknown);
        assert_eq!(Code::Unauthenticated.name(), "UNAUTHENTICATED");
    }
}
