//! The imports among the files of one crate.
//!
//! An import runs from a file that names an item to the file that defines it: re-exports are followed, and draw nothing
//! themselves. Names inside macros count as well. Method calls name no file and are not seen; tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

/// The path of a module from the root of its crate.
type Module = Vec<String>;

/// A path in the source, resolved to the root of its crate.
type Resolved = Vec<String>;

/// An import: one file names an item of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    pub(crate) from: String,
    pub(crate) to: String,
    name: String,
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}: {}", self.from, self.to, self.name)
    }
}

/// Returns the folder at the root that a file is in, or the file's own name without its ending.
pub(crate) fn folder(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

/// The sources of one crate.
pub(crate) struct Crate {
    modules: BTreeMap<Module, ModuleSource>,
}

/// A module's imports and paths, and the file that it stands in.
#[derive(Default)]
struct ModuleSource {
    file: String,
    /// Names that its `use` items bind: where each comes from, and whether it is re-exported.
    uses: Vec<Use>,
    /// Paths with more than one segment, anywhere in its code.
    paths: Vec<Vec<String>>,
    /// The first segments of all paths.
    names: BTreeSet<String>,
}

struct Use {
    name: String,
    path: Vec<String>,
    is_handed_on: bool,
}

impl Crate {
    /// Reads all files under a crate's `src`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut files = Vec::new();
        collect(root, &mut files);
        files.sort();
        let mut modules = BTreeMap::new();
        for path in files {
            let file = path.strip_prefix(root).expect("under the root").to_string_lossy().into_owned();
            let source = std::fs::read_to_string(&path).expect("a source file");
            let parsed = syn::parse_file(&source).unwrap_or_else(|error| panic!("{file}: {error}"));
            add(&mut modules, module_of(&file), &file, &parsed.items);
        }
        Self { modules }
    }

    /// Every import from one file to another, once for each name.
    pub(crate) fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (module, source) in &self.modules {
            let uses = source.uses.iter().filter(|one| !one.is_handed_on || source.names.contains(&one.name));
            let named = uses.map(|one| &one.path).chain(&source.paths);
            for path in named {
                let Some(resolved) = self.absolute(module, path) else { continue };
                let resolved = self.follow(resolved, 0);
                let (defining, rest) = self.module_in(&resolved);
                let to = &self.modules[defining].file;
                if *to != source.file {
                    let name = rest.first().or(resolved.last()).cloned().unwrap_or_default();
                    imports.insert(Import { from: source.file.clone(), to: to.clone(), name });
                }
            }
        }
        imports
    }

    /// Returns the path from the crate's root; `None` for an item of another crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Resolved> {
        let mut base = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => module.to_vec(),
            first => {
                let child: Module = module.iter().cloned().chain([first.to_owned()]).collect();
                let is_bound = || self.modules.get(module).is_some_and(|m| m.uses.iter().any(|one| one.name == first));
                if !(self.modules.contains_key(&child) || path.len() > 1 && is_bound()) {
                    return None;
                }
                let mut whole = module.to_vec();
                whole.extend_from_slice(path);
                return Some(whole);
            }
        };
        let ups = path.iter().take_while(|segment| *segment == "super").count();
        base.truncate(base.len().checked_sub(ups)?);
        let is_keyword = |segment: &&String| matches!(segment.as_str(), "crate" | "self" | "super");
        base.extend(path.iter().skip_while(is_keyword).cloned());
        Some(base)
    }

    /// Returns the innermost module that a path leads through, and the rest of the path.
    fn module_in<'a>(&'a self, path: &'a [String]) -> (&'a [String], &'a [String]) {
        let depth = (0..=path.len()).rev().find(|depth| self.modules.contains_key(&path[..*depth]));
        path.split_at(depth.unwrap_or_default())
    }

    /// Follows re-exports to the place where a name is defined.
    fn follow(&self, path: Resolved, steps: usize) -> Resolved {
        let (module, rest) = self.module_in(&path);
        let Some(name) = rest.first().filter(|_| steps < 10) else { return path };
        let Some(bound) = self.modules[module].uses.iter().find(|one| one.name == *name) else { return path };
        match self.absolute(module, &bound.path) {
            Some(mut next) if next != path => {
                next.extend_from_slice(&rest[1..]);
                self.follow(next, steps + 1)
            }
            _ => path,
        }
    }

    /// Sets of files that import each other in a circle, largest first.
    pub(crate) fn circles(&self) -> Vec<Vec<String>> {
        let mut reached: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for import in self.imports() {
            reached.entry(import.from).or_default().insert(import.to);
        }
        let files: Vec<String> = reached.keys().cloned().collect();
        // Each file's reach, straight or through others. A crate has too few files for the cost to matter.
        loop {
            let before: usize = reached.values().map(BTreeSet::len).sum();
            for file in &files {
                let further =
                    reached[file].iter().filter_map(|to| reached.get(to)).flatten().cloned().collect::<Vec<_>>();
                reached.entry(file.clone()).or_default().extend(further);
            }
            if reached.values().map(BTreeSet::len).sum::<usize>() == before {
                break;
            }
        }
        let reaches = |a: &String, b: &String| reached.get(a).is_some_and(|to| to.contains(b));
        let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
        for file in files.iter().filter(|file| reaches(file, file)) {
            circles
                .insert(files.iter().filter(|other| reaches(file, other) && reaches(other, file)).cloned().collect());
        }
        let mut circles: Vec<_> = circles.into_iter().collect();
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
        circles
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" && name != "bin" {
            collect(&path, files);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            files.push(path);
        }
    }
}

/// Returns the module that a file defines.
fn module_of(file: &str) -> Module {
    let mut module: Module = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if {
                let tokens = list.tokens.to_string();
                tokens == "test" || tokens.starts_with("all (test")
            })
    })
}

fn add(modules: &mut BTreeMap<Module, ModuleSource>, module: Module, file: &str, items: &[Item]) {
    let mut source = ModuleSource { file: file.to_owned(), ..ModuleSource::default() };
    for item in items {
        match item {
            Item::Use(one) => {
                if !is_test(&one.attrs) {
                    flatten(one, &one.tree, &mut Vec::new(), &mut source.uses);
                }
            }
            Item::Mod(inner) => {
                if let (Some((_, items)), false) = (&inner.content, is_test(&inner.attrs)) {
                    let child = module.iter().cloned().chain([inner.ident.to_string()]).collect();
                    add(modules, child, file, items);
                }
            }
            other => Paths(&mut source).visit_item(other),
        }
    }
    modules.insert(module, source);
}

fn flatten(item: &ItemUse, tree: &UseTree, before: &mut Vec<String>, uses: &mut Vec<Use>) {
    let is_handed_on = !matches!(item.vis, Visibility::Inherited);
    let mut bind = |name: String, path: Vec<String>| uses.push(Use { name, path, is_handed_on });
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(item, &path.tree, before, uses);
            before.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            bind(before.last().cloned().unwrap_or_default(), before.clone());
        }
        UseTree::Name(name) => bind(name.ident.to_string(), with(before, &name.ident)),
        UseTree::Rename(name) => bind(name.rename.to_string(), with(before, &name.ident)),
        UseTree::Glob(_) => bind("*".to_owned(), before.clone()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(item, tree, before, uses)),
    }
}

fn with(before: &[String], last: &syn::Ident) -> Vec<String> {
    before.iter().cloned().chain([last.to_string()]).collect()
}

/// Collects the paths in a module's code.
struct Paths<'a>(&'a mut ModuleSource);

impl Paths<'_> {
    fn add(&mut self, segments: Vec<String>) {
        if let Some(first) = segments.first() {
            self.0.names.insert(first.clone());
        }
        if segments.len() > 1 {
            self.0.paths.push(segments);
        }
    }

    /// Collects the paths in a macro's input, which is not parsed: names with `::` between them.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.add(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    self.add(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add(path);
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, one: &'ast syn::Macro) {
        self.add_tokens(one.tokens.clone());
        visit::visit_macro(self, one);
    }
}
