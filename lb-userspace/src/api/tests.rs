//! Questions and answers over a real socket.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::client::{Client, ClientError};
use super::requests::{BackendAction, BackendChange, ConfigFile, ConfigText};
use super::server::{self, ServerError};
use super::types::{BgpPeers, BgpRoutes, Drops, Outcome, Stats, Status, Trace, Vips};
use super::{Call, Failure, Request, Response, sample};

/// A directory of one test's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lb-api-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("run/lbd.sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Stands in for the controller: answers with samples, and keeps what it was asked.
async fn controller(mut calls: mpsc::Receiver<Call>, asked: mpsc::UnboundedSender<Request>) {
    while let Some(Call { request, reply }) = calls.recv().await {
        let answer: Result<Response, Failure> = match &request {
            Request::Status => Ok(sample::status().into()),
            Request::Vips => Ok(sample::vips().into()),
            Request::Stats => Ok(sample::stats().into()),
            Request::Trace(_) => Ok(sample::trace().into()),
            Request::Drops { .. } => Ok(sample::drops().into()),
            Request::Metrics => Ok(sample::snapshot().into()),
            Request::BgpPeers => Ok(sample::bgp_peers().into()),
            Request::BgpRoutes(_) => Ok(sample::bgp_routes().into()),
            Request::Plan(_) | Request::Backend(_) | Request::Drain(_) | Request::Bgp(_) => {
                Ok(sample::outcome().into())
            }
            Request::Apply(_) => Err(Failure::invalid("error[x]: no\n --> a:1")),
        };
        asked.send(request).unwrap();
        reply.send(answer).unwrap();
    }
}

/// A server with its stand-in; what was asked.
async fn serve(socket: &Path) -> mpsc::UnboundedReceiver<Request> {
    let (calls, receiver) = mpsc::channel(8);
    let (asked, questions) = mpsc::unbounded_channel();
    tokio::spawn(server::unix(socket, None, calls).await.unwrap());
    tokio::spawn(controller(receiver, asked));
    questions
}

#[tokio::test]
async fn what_is_read_is_what_was_written() {
    let scratch = Scratch::new("read");
    let mut questions = serve(&scratch.socket()).await;
    let client = Client::new(&scratch.socket());
    let status = client.get::<Status>("/v1/status").await.unwrap();
    assert_eq!(status.value, sample::status());
    assert!(status.json.starts_with(r#"{"version":1,"health":"degraded","#), "{}", status.json);
    assert_eq!(client.get::<Vips>("/v1/vips").await.unwrap().value, sample::vips());
    assert_eq!(client.get::<Stats>("/v1/stats").await.unwrap().value, sample::stats());
    assert_eq!(client.get::<Drops>("/v1/drops?after=3").await.unwrap().value, sample::drops());
    assert_eq!(client.get::<BgpPeers>("/v1/bgp").await.unwrap().value, sample::bgp_peers());
    let path = "/v1/bgp/routes?prefix=203.0.113.0%2F24&peer=edge1";
    assert_eq!(client.get::<BgpRoutes>(path).await.unwrap().value, sample::bgp_routes());
    let path = "/v1/trace?source=%5B2001%3Adb8%3A%3A7%5D%3A40001&target=www";
    assert_eq!(client.get::<Trace>(path).await.unwrap().value, sample::trace());
    let mut last = Request::Status;
    while let Ok(request) = questions.try_recv() {
        last = request;
    }
    let Request::Trace(question) = last else { panic!("{last:?}") };
    assert_eq!(question.source, "[2001:db8::7]:40001".parse().unwrap());
}

#[tokio::test]
async fn orders_arrive_as_they_were_given() {
    let scratch = Scratch::new("post");
    let mut questions = serve(&scratch.socket()).await;
    let client = Client::new(&scratch.socket());
    let change = BackendChange {
        pool: "web".to_owned(),
        backend: "web3".to_owned(),
        action: BackendAction::Weight(50),
    };
    let outcome = client.post::<Outcome>("/v1/backend", &change).await.unwrap();
    assert_eq!(outcome.value, sample::outcome());
    assert_eq!(questions.recv().await, Some(Request::Backend(change)));
    // Ten megabytes are a large configuration, and no more than that.
    let text = "# \"a\"\n".repeat(1_700_000);
    let config = ConfigText { files: vec![ConfigFile { path: "/lb.toml".into(), text }] };
    client.post::<Outcome>("/v1/plan", &config).await.unwrap();
    assert_eq!(questions.recv().await, Some(Request::Plan(config.clone())));
    let refused = client.post::<Outcome>("/v1/apply", &config).await.unwrap_err();
    assert_eq!(refused.to_string(), "error[x]: no\n --> a:1");
}

#[tokio::test]
async fn nonsense_is_answered() {
    let scratch = Scratch::new("nonsense");
    let _questions = serve(&scratch.socket()).await;
    let client = Client::new(&scratch.socket());
    for (path, code) in [
        ("/v2/status", "unknown"),
        ("/v1/trace?source=me&target=www", "invalid"),
        ("/v1/trace", "invalid"),
        ("/v1/drops?after=-1", "invalid"),
    ] {
        match client.get::<Status>(path).await {
            Err(ClientError::Failed(failure)) => assert_eq!(failure.code, code, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    match client.post::<Outcome>("/v1/backend", &"drain").await {
        Err(ClientError::Failed(failure)) => assert_eq!(failure.code, "invalid"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_controller_that_is_gone_or_busy_is_told() {
    let scratch = Scratch::new("busy");
    let (calls, receiver) = mpsc::channel(1);
    tokio::spawn(server::unix(&scratch.socket(), None, calls.clone()).await.unwrap());
    let client = Client::new(&scratch.socket());
    let (reply, _answer) = tokio::sync::oneshot::channel();
    calls.try_send(Call { request: Request::Status, reply }).unwrap();
    let busy = client.get::<Status>("/v1/status").await.unwrap_err();
    assert_eq!(busy.to_string(), "lbd is busy; try again in a second");
    drop(receiver);
    let gone = client.get::<Status>("/v1/status").await.unwrap_err();
    assert_eq!(gone.to_string(), "lbd is stopping");
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_group_only() {
    let scratch = Scratch::new("mode");
    let _questions = serve(&scratch.socket()).await;
    let mode = std::fs::metadata(scratch.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[tokio::test]
async fn what_is_in_the_way_of_the_socket() {
    let scratch = Scratch::new("way");
    let bind = async |path: &Path, group: Option<&str>| {
        let (calls, _receiver) = mpsc::channel(1);
        server::unix(path, group, calls).await.map(drop)
    };
    let file = scratch.0.join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(bind(&file, None).await, Err(ServerError::NoSocket(_))));
    let used = scratch.0.join("used");
    let listener = UnixListener::bind(&used).unwrap();
    assert!(matches!(bind(&used, None).await, Err(ServerError::InUse(_))));
    // Nobody answers any more, so it is taken over.
    drop(listener);
    bind(&used, None).await.unwrap();
    let group = bind(&scratch.0.join("group"), Some("no-such-group")).await;
    assert!(matches!(group, Err(ServerError::Group(_))));
}

#[tokio::test]
async fn without_lbd_one_is_told_what_to_do() {
    let scratch = Scratch::new("absent");
    let missing = Client::new(&scratch.socket()).get::<Status>("/v1/status").await.unwrap_err();
    assert!(missing.to_string().contains("is lbd running?"), "{missing}");
    let path = scratch.0.join("left-over");
    drop(UnixListener::bind(&path).unwrap());
    let refused = Client::new(&path).get::<Status>("/v1/status").await.unwrap_err();
    assert!(refused.to_string().contains("lbd has stopped"), "{refused}");
}

#[tokio::test]
async fn metrics_are_served_on_tcp() {
    let (calls, receiver) = mpsc::channel(8);
    let (asked, _questions) = mpsc::unbounded_channel();
    tokio::spawn(controller(receiver, asked));
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let encode = |snapshot: &super::types::Snapshot| format!("node {}\n", snapshot.status.node);
    tokio::spawn(server::metrics(address, calls, encode).await.unwrap());
    let text = fetch(address, "/metrics").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("application/openmetrics-text; version=1.0.0"), "{text}");
    assert!(text.ends_with("node fra1-lb1\n"), "{text}");
    assert!(fetch(address, "/").await.starts_with("HTTP/1.1 404"));
}

async fn fetch(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
