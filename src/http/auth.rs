//! Who may ask: the token, compared in constant time, and the peer on loopback.

use std::{hint::black_box, net::SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};

use super::settings::{Reads, Settings};

/// Why a request is turned away. The answer does not say more than its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// A token is needed, and none was sent.
    NoToken,
    /// The token is wrong, or no token opens this.
    Forbidden,
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {
            // The header is what the status demands.
            Self::NoToken => {
                (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response()
            }
            Self::Forbidden => StatusCode::FORBIDDEN.into_response(),
        }
    }
}

/// Whether a request may change something.
pub(super) fn may_write(settings: &Settings, parts: &Parts) -> Result<(), Denied> {
    let Some(token) = &settings.token else { return Err(Denied::Forbidden) };
    let mut sent = tokens(&parts.headers).peekable();
    if sent.peek().is_none() {
        return Err(Denied::NoToken);
    }
    // Every token that was sent is compared, so that time tells nothing about which one fits.
    let fits = sent.fold(false, |fits, sent| fits | same(sent, token.as_bytes()));
    if fits { Ok(()) } else { Err(Denied::Forbidden) }
}

/// Whether a request may look.
pub(super) fn may_read(settings: &Settings, parts: &Parts) -> Result<(), Denied> {
    match settings.reads {
        Reads::Open => Ok(()),
        Reads::OpenOnLoopback if is_local(parts) => Ok(()),
        Reads::OpenOnLoopback | Reads::Token => may_write(settings, parts),
    }
}

/// Whether the peer is known, on loopback, and no proxy that speaks for somebody else.
fn is_local(parts: &Parts) -> bool {
    let proxied = ["forwarded", "x-forwarded-for"].iter().any(|h| parts.headers.contains_key(*h));
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    !proxied && peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback())
}

/// The tokens that a request bears.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let consul = headers.get_all("x-consul-token").iter().map(HeaderValue::as_bytes);
    let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
    });
    consul.chain(bearer).filter(|token| !token.is_empty())
}

/// Compares in a time that depends on the length of what was sent only.
fn same(sent: &[u8], token: &[u8]) -> bool {
    let mut differs = u8::from(sent.len() != token.len());
    for (i, byte) in sent.iter().enumerate() {
        let other = token.get(i % token.len().max(1)).copied().unwrap_or_default();
        differs |= black_box(byte ^ other);
    }
    black_box(differs) == 0
}
