//! Bus URLs: `SCHEME://AUTHORITY[?PARAMETER=VALUE[&…]]`.
//!
//! They are read by hand rather than by a URL library: an authority may be a list of brokers, `a:9092,b:9092`, which is
//! not a URL's authority. Errors repeat nothing of the authority, which may hold a password.

use percent_encoding::percent_decode_str;

use super::ConfigError;
use super::scheme::{Scheme, schemes};
use super::source::{Origin, Source};

/// What is said of an @ behind the first ?.
const UNCLEAR: &str =
    "an @ stands among the parameters, one of which is wrong: expected user and password percent-encoded";

pub(super) fn read(url: &str, origin: Origin) -> Result<Source, ConfigError> {
    let Some((name, rest)) = url.split_once("://") else {
        let known: Vec<String> = schemes().iter().map(|scheme| format!("{}://", scheme.name)).collect();
        return Err(ConfigError::url(format!("expected it to begin with one of {}", known.join(" "))));
    };
    let scheme = Scheme::named(name)?;
    if rest.contains('#') {
        return Err(ConfigError::url("a fragment (#) has no meaning here"));
    }
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = if scheme.needs_place() { Some(authority.to_owned()) } else { log_name(authority)? };
    let backend = Some((scheme, place, origin.clone()));
    let mut source = Source { origin, backend, ..Source::default() };
    // With an @ behind it, the first ? may be part of a password, and names and values its other parts.
    let unclear = |error| if query.contains('@') { ConfigError::url(UNCLEAR) } else { error };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode("the name of a parameter", name)?, decode("the value of a parameter", value)?);
        source.set_parameter(scheme, &name, value).map_err(unclear)?;
    }
    Ok(source)
}

/// Returns the name of a log in memory, if the URL has one.
fn log_name(authority: &str) -> Result<Option<String>, ConfigError> {
    if authority.contains('@') {
        return Err(ConfigError::url("memory:// takes a name, no user or password"));
    }
    Ok(Some(decode("the name", authority)?).filter(|name| !name.is_empty()))
}

fn decode(what: &str, text: &str) -> Result<String, ConfigError> {
    let decoded = percent_decode_str(text).decode_utf8().map(Into::into);
    decoded.map_err(|_| ConfigError::url(format!("{what} is no UTF-8 once its percent-encoding is undone")))
}
