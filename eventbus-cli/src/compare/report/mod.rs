//! Report of a comparison, for `--report DIR`: all figures as `report.json`, and a page drawn from it that needs no
//! network.

mod contents;
mod environment;
mod page;
mod plots;

use std::fs;
use std::path::Path;

pub(crate) use self::contents::Report;
pub(crate) use self::environment::Environment;
use crate::exit::Failure;

impl Report {
    /// Writes `report.json` and `index.html` into a folder, and makes the folder. The page compares with `before`, if
    /// given.
    pub(crate) fn write(&self, folder: &Path, before: Option<&Self>) -> Result<(), Failure> {
        let named = |error: std::io::Error| Failure::failed(format!("{}: {error}", folder.display()));
        let json = serde_json::to_vec_pretty(self).map_err(Failure::failed)?;
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(folder.join("report.json"), json))
            .and_then(|()| fs::write(folder.join("index.html"), page::page(self, before)))
            .map_err(named)
    }
}
