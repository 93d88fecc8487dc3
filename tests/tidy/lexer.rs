//! From text to tokens, as far as the rules need it: names, signs, literals, each with its line.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name, a keyword or a number.
    Word,
    /// `::`, or one character.
    Sign,
    /// The content of a string.
    Text,
    /// A lifetime or the content of a character literal.
    Other,
}

/// A token.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// From 1.
    pub(crate) line: usize,
    /// Within test code: a module or function under `#[cfg(test)]` or `#[test]`.
    pub(crate) in_test: bool,
}

impl Token {
    pub(crate) fn is(&self, text: &str) -> bool {
        self.text == text && matches!(self.kind, Kind::Word | Kind::Sign)
    }
}

/// A file's tokens, comments left out.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub(crate) tokens: Vec<Token>,
}

impl Code {
    /// The token at this place is that word or sign.
    pub(crate) fn is(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is(text))
    }

    /// The place after the bracket that closes the one at `open`.
    pub(crate) fn after_closing(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            if token.kind == Kind::Sign {
                match token.text.as_str() {
                    "(" | "[" | "{" => depth += 1,
                    ")" | "]" | "}" => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            if depth == 0 {
                return at + 1;
            }
        }
        self.tokens.len()
    }
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

/// Cuts a file into tokens.
pub(crate) fn code(text: &str) -> Code {
    let mut lexer = Lexer { rest: text, line: 1, tokens: Vec::new() };
    while lexer.token() {}
    let mut code = Code { tokens: lexer.tokens };
    mark_tests(&mut code);
    code
}

impl Lexer<'_> {
    fn take(&mut self, bytes: usize) -> &str {
        let (head, tail) = self.rest.split_at(bytes.min(self.rest.len()));
        self.line += head.matches('\n').count();
        self.rest = tail;
        head
    }

    fn push(&mut self, kind: Kind, bytes: usize) {
        let line = self.line;
        let text = self.take(bytes).to_owned();
        self.tokens.push(Token { kind, text, line, in_test: false });
    }

    /// Takes one token, or what stands between two; whether there was anything.
    fn token(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        if first.is_whitespace() {
            self.take(first.len_utf8());
        } else if self.rest.starts_with("//") {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.block_comment();
        } else if let Some((prefix, hashes)) = string_prefix(self.rest) {
            self.string(prefix, hashes);
        } else if first.is_alphanumeric() || first == '_' {
            self.push(Kind::Word, word_len(self.rest));
        } else if first == '\'' {
            self.quote();
        } else if self.rest.starts_with("::") {
            self.push(Kind::Sign, 2);
        } else {
            self.push(Kind::Sign, first.len_utf8());
        }
        true
    }

    fn block_comment(&mut self) {
        let mut depth = 0usize;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
            } else {
                self.take(self.rest.chars().next().map_or(0, char::len_utf8));
            }
            if depth == 0 || self.rest.is_empty() {
                return;
            }
        }
    }

    /// A string; `hashes`: of a raw one.
    fn string(&mut self, prefix: usize, hashes: Option<usize>) {
        self.take(prefix);
        let end = match hashes {
            Some(hashes) => {
                let close = format!("\"{}", "#".repeat(hashes));
                self.rest.find(&close).map(|at| (at, close.len()))
            }
            None => unescaped(self.rest, '"').map(|at| (at, 1)),
        };
        let (at, close) = end.unwrap_or((self.rest.len(), 0));
        self.push(Kind::Text, at);
        self.take(close);
    }

    /// A character, or a lifetime.
    fn quote(&mut self) {
        self.take(1);
        let mut chars = self.rest.chars();
        let (first, second) = (chars.next(), chars.next());
        if first == Some('\\') || second == Some('\'') {
            let at = unescaped(self.rest, '\'').unwrap_or(self.rest.len());
            self.push(Kind::Other, at);
            self.take(1);
        } else {
            self.push(Kind::Other, word_len(self.rest));
        }
    }
}

fn word_len(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn unescaped(text: &str, end: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == end => return Some(at),
            _ => {}
        }
    }
    None
}

/// Bytes up to and with the opening quote of a string, and the hashes of a raw one.
fn string_prefix(text: &str) -> Option<(usize, Option<usize>)> {
    let letters = word_len(text);
    let prefix = text.get(..letters)?;
    if !["", "r", "b", "br", "c", "cr"].contains(&prefix) {
        return None;
    }
    let rest = text.get(letters..)?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let raw = prefix.contains('r');
    let quote = rest.get(hashes..)?.starts_with('"');
    (quote && (raw || hashes == 0)).then_some((letters + hashes + 1, raw.then_some(hashes)))
}

/// Marks what stands under `#[test]` or a `#[cfg(..test..)]`.
fn mark_tests(code: &mut Code) {
    let mut at = 0;
    while at < code.tokens.len() {
        if !(code.is(at, "#") && code.is(at + 1, "[")) {
            at += 1;
            continue;
        }
        let end = code.after_closing(at + 1);
        let words: Vec<&str> = code.tokens[at..end].iter().map(|token| token.text.as_str()).collect();
        let is_test = match words.get(2) {
            Some(&"test") => true,
            Some(&"cfg") => words.contains(&"test") && !words.contains(&"not"),
            _ => false,
        };
        at = end;
        if is_test {
            let open = (end..code.tokens.len()).find(|at| code.is(*at, "{") || code.is(*at, ";"));
            let Some(open) = open else { continue };
            let last = if code.is(open, "{") { code.after_closing(open) } else { open };
            code.tokens[end..last].iter_mut().for_each(|token| token.in_test = true);
        }
    }
}
