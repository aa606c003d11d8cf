//! The smallest HTTP client that serves: one request, one answer, one deadline.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The longest way from server to server in search of the leader.
const MAX_REDIRECTS: usize = 3;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header, if it is there and is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Sends one request to `host:port`, follows it to the leader, and reads the whole answer, of at
/// most 2 MiB, within `limit`; `token` is presented where there is one.
pub(crate) async fn ask(
    method: &str,
    addr: &str,
    path: &str,
    token: Option<&str>,
    body: Vec<u8>,
    limit: Duration,
) -> Result<Answer, Error> {
    let asking = async {
        let mut answer = exchange(method, addr, path, token, body.clone()).await?;
        for _ in 0..MAX_REDIRECTS {
            let location = answer.header("location").and_then(|url| url.strip_prefix("http://"));
            let Some(addr) = location else { break };
            let addr = addr.split_once('/').map_or(addr, |(addr, _)| addr).to_owned();
            answer = exchange(method, &addr, path, token, body.clone()).await?;
        }
        Ok(answer)
    };
    tokio::time::timeout(limit, asking).await?
}

async fn exchange(
    method: &str,
    addr: &str,
    path: &str,
    token: Option<&str>,
    body: Vec<u8>,
) -> Result<Answer, Error> {
    let stream = TcpStream::connect(addr).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder().method(method).uri(path).header("host", addr);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    // Its end drops the sender, and that ends the connection.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, 2 << 20).collect().await?.to_bytes().to_vec();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::join!(exchange, connection).0
}
