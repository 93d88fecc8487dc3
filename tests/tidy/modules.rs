//! The order of the layers, and cycles among modules.
//!
//! A module is a file. It uses another when one of its paths, in a `use` or in the middle of code, leads there;
//! a name that a module has imported or exported again counts for the module where it comes from. What a parent
//! and its children use of each other is no cycle: a parent names its children to hold them, and children extend
//! what their parent defines. So cycles are looked for among brothers and sisters, each with all below it.

use crate::lexer::{Code, Kind};
use crate::{Finding, Source};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The order in force, from the bottom to the top. A module uses lower layers only: never its own, or a higher one.
pub(crate) const LAYERS: [&[&str]; 10] = [
    &["base"],
    &["auth", "limit", "routing"],
    &["relay"],
    &["directory"],
    &["session", "forward"],
    &["shard"],
    // Their settings are their own, so what reads the configuration stands above them.
    &["reactor", "control", "telemetry", "admin"],
    &["config"],
    &["gateway"],
    &["command", "main"],
];

/// Two sides of a mailbox: each knows what it says, never who listens.
const STRANGERS: [(&str, &str); 2] = [("shard", "forward"), ("forward", "shard")];

/// The layers that decide, and never touch the world.
pub(crate) fn is_pure(module: &str) -> bool {
    LAYERS[..6].iter().any(|layer| layer.contains(&module))
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Names from the top of the crate down.
type Path = Vec<String>;

/// One path that stands in a file.
#[derive(Debug)]
pub(crate) struct Mention {
    pub(crate) path: Path,
    pub(crate) line: usize,
    /// Names of the modules within the file around it.
    inner: Path,
    /// Brought into scope by `use`, under this name.
    alias: Option<String>,
}

/// Where a file of the gateway stands among the modules; `None`: it is not of the gateway.
pub(crate) fn module_of(path: &str) -> Option<Path> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    Some(if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() })
}

/// Every path in a file, those of `use` one by one.
pub(crate) fn mentions(code: &Code) -> Vec<Mention> {
    let mut found = Vec::new();
    let mut inner: Vec<(String, usize)> = Vec::new();
    let mut at = 0;
    while at < code.tokens.len() {
        inner.retain(|(_, end)| at < *end);
        let names = || inner.iter().map(|(name, _)| name.clone()).collect::<Path>();
        if code.is(at, "mod") && code.is(at + 2, "{") {
            inner.push((code.tokens[at + 1].text.clone(), code.after_closing(at + 2)));
            at += 3;
        } else if code.is(at, "use") && !code.is(at + 1, "<") {
            let mut leaves = Vec::new();
            at = use_tree(code, at + 1, &[], &mut leaves);
            found.extend(leaves.into_iter().map(|(path, line, alias)| Mention {
                path,
                line,
                inner: names(),
                alias: Some(alias),
            }));
        } else if code.tokens[at].kind == Kind::Word && code.is(at + 1, "::") {
            let (path, end) = inline(code, at);
            found.push(Mention { path, line: code.tokens[at].line, inner: names(), alias: None });
            at = end;
        } else {
            at += 1;
        }
    }
    found
}

fn inline(code: &Code, mut at: usize) -> (Path, usize) {
    let mut path = vec![code.tokens[at].text.clone()];
    while code.is(at + 1, "::") && code.tokens.get(at + 2).is_some_and(|token| token.kind == Kind::Word) {
        at += 2;
        path.push(code.tokens[at].text.clone());
    }
    (path, at + 1)
}

/// Reads one tree of a `use`; the place behind it.
fn use_tree(code: &Code, mut at: usize, before: &[String], leaves: &mut Vec<(Path, usize, String)>) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = code.tokens.get(at) {
        match token.text.as_str() {
            "::" => at += 1,
            "{" => {
                let end = code.after_closing(at);
                at += 1;
                while at < end - 1 {
                    at = use_tree(code, at, &path, leaves);
                }
                return end;
            }
            "," | ";" | "}" => break,
            "as" => {
                let alias = code.tokens.get(at + 1).map_or("", |token| token.text.as_str());
                leaves.push((path, token.line, alias.to_owned()));
                return at + 3;
            }
            "self" if !path.is_empty() => at += 1,
            name => {
                path.push(name.to_owned());
                at += 1;
            }
        }
    }
    let line = code.tokens.get(at.saturating_sub(1)).map_or(0, |token| token.line);
    if let Some(last) = path.last().cloned().filter(|_| path != before || code.is(at - 1, "self")) {
        leaves.push((path, line, last));
    }
    at + 1
}

/// The modules of the gateway, and what each has brought into its scope.
struct House {
    scopes: HashMap<Path, HashMap<String, Path>>,
}

impl House {
    fn new(files: &[(Path, Vec<Mention>)]) -> House {
        let mut house =
            House { scopes: files.iter().map(|(module, _)| (module.clone(), HashMap::new())).collect() };
        for (module, mentions) in files {
            let named = mentions.iter().filter(|mention| mention.inner.is_empty());
            let scope: HashMap<String, Path> = named
                .filter_map(|mention| Some((mention.alias.clone()?, house.absolute(module, mention)?)))
                .collect();
            house.scopes.insert(module.clone(), scope);
        }
        house
    }

    /// From the top of the crate; `None`: it leads out of the gateway.
    fn absolute(&self, module: &Path, mention: &Mention) -> Option<Path> {
        let mut at: Path = module.iter().chain(&mention.inner).cloned().collect();
        let mut rest = mention.path.as_slice();
        match rest.first()?.as_str() {
            "crate" | "moorgate" => (at, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            name => {
                at.push(name.to_owned());
                if !self.scopes.contains_key(&at) {
                    return None;
                }
                rest = &rest[1..];
            }
        }
        at.extend(rest.iter().cloned());
        Some(at)
    }

    /// The module that owns what a path names, imports followed to their source.
    fn owner(&self, path: &[String], depth: usize) -> Path {
        let known = (0..=path.len()).rev().find(|len| self.scopes.contains_key(&path[..*len]));
        let module = path[..known.unwrap_or(0)].to_vec();
        let Some(name) = path.get(module.len()) else { return module };
        match self.scopes.get(&module).and_then(|scope| scope.get(name)) {
            Some(source) if depth < 8 && source != path => self.owner(source, depth + 1),
            _ => module,
        }
    }
}

/// Findings about who uses whom.
pub(crate) fn findings(sources: &[Source]) -> Vec<Finding> {
    let gateway: Vec<(&Source, Path)> =
        sources.iter().filter_map(|source| Some((source, module_of(&source.path)?))).collect();
    let files: Vec<(Path, Vec<Mention>)> =
        gateway.iter().map(|(source, module)| (module.clone(), mentions(&source.code))).collect();
    let house = House::new(&files);
    let mut found = Vec::new();
    let mut edges = Edges::default();
    for ((source, _), (module, mentions)) in gateway.iter().zip(&files) {
        let at = |line, what| Finding { path: source.path.clone(), line, what };
        let Some(own) = module.first() else { continue };
        if layer(own).is_none() {
            found.push(at(1, format!("module `{own}` has no layer: give it one in tests/tidy/modules.rs")));
        }
        for mention in mentions {
            let Some(path) = house.absolute(module, mention) else { continue };
            let owner = house.owner(&path, 0);
            found.extend(forbidden(own, &owner).map(|what| at(mention.line, what)));
            edges.add(module, &owner, &source.path, mention.line);
        }
    }
    found.extend(edges.cycles());
    found
}

fn forbidden(own: &str, owner: &[String]) -> Option<String> {
    let other = owner.first()?.as_str();
    if STRANGERS.contains(&(own, other)) {
        return Some(format!("`{own}` must not know `{other}`"));
    }
    let (mine, its) = (layer(own)?, layer(other)?);
    if own == other || its < mine || (own, other) == ("main", "command") {
        return None;
    }
    let kind = if its == mine { "a module of its own layer" } else { "a higher layer" };
    Some(format!("`{own}` uses `{other}`, {kind}"))
}

/// Who uses whom among brothers and sisters, and one place where it does.
#[derive(Default)]
struct Edges {
    uses: BTreeMap<Path, BTreeMap<Path, (String, usize)>>,
}

impl Edges {
    fn add(&mut self, from: &Path, to: &Path, path: &str, line: usize) {
        let same = from.iter().zip(to).take_while(|(one, other)| one == other).count();
        if same < from.len() && same < to.len() {
            let (one, other) = (from[..=same].to_vec(), to[..=same].to_vec());
            self.uses.entry(one).or_default().entry(other).or_insert((path.to_owned(), line));
        }
    }

    fn reaches(&self, from: &Path, to: &Path) -> bool {
        let mut seen: BTreeSet<&Path> = BTreeSet::new();
        let mut open = vec![from];
        while let Some(module) = open.pop() {
            if module == to {
                return true;
            }
            if seen.insert(module) {
                open.extend(self.uses.get(module).into_iter().flat_map(BTreeMap::keys));
            }
        }
        false
    }

    fn cycles(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (from, uses) in &self.uses {
            for (to, (path, line)) in uses {
                if self.reaches(to, from) {
                    let what = format!("a cycle: `{}` uses `{}`, and back", from.join("::"), to.join("::"));
                    found.push(Finding { path: path.clone(), line: *line, what });
                }
            }
        }
        found
    }
}

/// Findings about the table of modules in `src/lib.rs`: it names every module, lowest layers first.
pub(crate) fn map_findings(source: &Source) -> Vec<Finding> {
    let at = |line: usize, what: String| Finding { path: source.path.clone(), line, what };
    let mut rows: Vec<(usize, &str)> = Vec::new();
    let mut declared: Vec<(usize, &str)> = Vec::new();
    for (line, text) in (1..).zip(source.text.lines()) {
        if let Some(row) = text.strip_prefix("//! | [`") {
            rows.extend(row.split('`').next().map(|name| (line, name)));
        } else if let Some(name) = text.strip_prefix("pub mod ") {
            declared.push((line, name.trim_end_matches(';')));
        }
    }
    let mut found = Vec::new();
    for (line, name) in &declared {
        if !rows.iter().any(|(_, row)| row == name) {
            found.push(at(*line, format!("module `{name}` is not in the table of modules")));
        }
    }
    for (line, name) in &rows {
        if !declared.iter().any(|(_, module)| module == name) {
            found.push(at(*line, format!("the table names `{name}`, which is no module")));
        }
    }
    for pair in rows.windows(2) {
        if layer(pair[0].1) > layer(pair[1].1) {
            found.push(at(pair[1].0, format!("`{}` stands below `{}` in the order", pair[1].1, pair[0].1)));
        }
    }
    found
}
