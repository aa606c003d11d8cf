//! One GET over HTTP/1.1, with a deadline.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Failure;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The longest answer; a thousand servers have less than 1 MiB.
const BODY_MAX: usize = 64 * 1024 * 1024;

/// Asks for `path` below `address`; anything but 200 is a failure that says what was answered.
pub(super) fn get(address: &str, path: &str, token: Option<&str>) -> Result<Value, Failure> {
    let base = address.trim_end_matches('/');
    let wrong = |what: &str| Failure::Input(format!("--address {address}: {what}"));
    let uri: Uri = format!("{base}{path}")
        .parse()
        .map_err(|error| wrong(&format!("{error}; expected http://host:port")))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("expected http://host:port; TLS is not spoken here"));
    }
    let host = uri.host().ok_or_else(|| wrong("expected a host"))?.to_owned();
    let port = uri.port_u16().unwrap_or(80);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Answer(error.to_string()))?;
    let asked = async { tokio::time::timeout(DEADLINE, ask(&uri, &host, port, token)).await };
    match runtime.block_on(asked) {
        Ok(Ok((status, body))) => answer(address, status, &body),
        Ok(Err(error)) => Err(Failure::Answer(format!("{address}: {error}"))),
        Err(_) => Err(Failure::Answer(format!("{address} did not answer in 10 s"))),
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

#[expect(clippy::disallowed_methods, reason = "a program, not a driver: it speaks to tokio")]
async fn ask(
    uri: &Uri,
    host: &str,
    port: u16,
    token: Option<&str>,
) -> Result<(StatusCode, Bytes), Error> {
    // An IPv6 address stands in brackets in a URL.
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path).header(header::HOST, format!("{host}:{port}"));
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), BODY_MAX).collect().await?.to_bytes();
    Ok((status, body))
}

fn answer(address: &str, status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    if status == StatusCode::OK {
        let what = || Failure::Answer(format!("{address}: the answer is no JSON"));
        return value.ok_or_else(what);
    }
    let said = |field: &str| Some(value.as_ref()?.get(field)?.as_str()?.to_owned());
    let mut words = said("Error").unwrap_or_else(|| match status {
        StatusCode::UNAUTHORIZED => "a token is needed: --token".to_owned(),
        StatusCode::FORBIDDEN => "the token is wrong".to_owned(),
        _ => "no reason was given".to_owned(),
    });
    if let Some(leader) = said("LeaderAddress").or_else(|| said("Leader")) {
        words = format!("{words}; the leader is {leader}");
    }
    Err(Failure::Answer(format!("{address}: {status}: {words}")))
}
