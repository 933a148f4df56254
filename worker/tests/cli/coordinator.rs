//! A scripted coordinator over a real network: the protocol's own machines around a made-up state.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use archipelago_common::{
    BlobRef, Columns, ConditionKey, NodeId, Principal, TaskId, Version,
    act::{Anchor, Anchored},
    record::{
        AssignmentHead, AssignmentRecord, AssignmentState, Page, ReferenceHead, StatusRecord, Submission, TaskHead,
        TaskRecord, TaskState,
    },
    reference_dir::ReferenceDir,
    signature::{Signature, Subject},
    task::SurgeryTask,
};
use archipelago_protocol::{
    ChunkReceiver, ChunkSender, CoordinatorSession,
    frame::{self, Message as _},
    message::{Chunk, GetReply, PutReply, Refusal, Reply, Request, StreamOpen, ToCoordinator},
};
use archipelago_transport::{
    Connection, Credentials, Error, Stream, Transport as _,
    ca::{Authority, Validity},
    net::{NetTransport, Network},
};
use tokio::runtime::Runtime;

/// A coordinator with one reference and one task.
pub(crate) struct Coordinator {
    runtime: Runtime,
    state: Arc<Mutex<State>>,
    pub(crate) address: String,
}

/// What the coordinator knows and was told.
pub(crate) struct State {
    pub(crate) reference: ReferenceHead,
    pub(crate) version: Version,
    /// Versions that there were before, or are said to have been.
    pub(crate) earlier: Vec<Version>,
    pub(crate) task: TaskRecord,
    pub(crate) signatures: BTreeMap<Subject, Signature>,
    pub(crate) blobs: BTreeMap<BlobRef, Vec<u8>>,
    /// Blobs that a site uploaded.
    pub(crate) uploaded: Vec<BlobRef>,
    /// Submissions in the order in which they came, refused ones too.
    pub(crate) submissions: Vec<Submission>,
    /// How many further submissions find their lease lapsed.
    pub(crate) lapses: u32,
    /// Whether an accepted submission ends the task for the site, as it should; without, a test may repeat it.
    pub(crate) remembers: bool,
    pub(crate) n_renewals: u32,
    /// How far the worker's audit log is, as it said.
    pub(crate) anchored: Anchored,
    /// How often it did not follow what had been anchored.
    pub(crate) begun_anew: u32,
    /// The losses that renewals told.
    pub(crate) losses: Vec<Option<f64>>,
    /// How many further lists of tasks are refused as too large.
    pub(crate) unlisted: u32,
    /// How many further downloads have a flipped bit.
    pub(crate) spoilt: u32,
    pub(crate) given_up: Option<String>,
    /// Whether it lets nobody in.
    pub(crate) shuts_out: bool,
    /// How far its clock is ahead.
    pub(crate) ahead_ms: i64,
}

impl Coordinator {
    /// Starts a coordinator that offers a task on the reference in a directory.
    pub(crate) fn start(authority: &Authority, reference: &ReferenceDir, task: impl FnOnce(&mut SurgeryTask)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let issued = authority.issue(&"coordinator/1".parse::<Principal>().unwrap(), Validity::days(1)).unwrap();
        let credentials = Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key).unwrap();
        let transport = NetTransport::new(credentials, Network::default());
        let mut listener = runtime.block_on(transport.listen("127.0.0.1:0")).unwrap();
        let address = listener.address().to_owned();
        let state = Arc::new(Mutex::new(State::new(reference, task)));
        let shared = state.clone();
        runtime.spawn(async move {
            while let Some(connection) = listener.accept().await {
                if shared.lock().unwrap().shuts_out {
                    connection.refuse("site `north` is not enrolled");
                    continue;
                }
                tokio::spawn(serve(shared.clone(), connection));
            }
        });
        Self { runtime, state, address }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until the state is as wanted; the test's own time limit ends a wait that is in vain.
    pub(crate) fn wait_until(&self, wanted: impl Fn(&State) -> bool) {
        self.runtime.block_on(async {
            let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
            while !wanted(&self.state()) {
                looks.tick().await;
            }
        });
    }
}

impl State {
    /// A blob that is at the coordinator.
    pub(crate) fn bytes(&self, blob: BlobRef) -> Vec<u8> {
        self.blobs[&blob].clone()
    }

    /// Columns that are at the coordinator.
    pub(crate) fn columns(&self, blob: BlobRef) -> Columns {
        Columns::from_bytes(&self.blobs[&blob]).unwrap()
    }

    fn new(reference: &ReferenceDir, change: impl FnOnce(&mut SurgeryTask)) -> Self {
        let version = reference.version().clone();
        let name = "pbmc".parse().unwrap();
        let mut task = SurgeryTask::new(name, version.id(), archipelago_common::task::TrainSpec::default());
        task.train.epochs = Some(2);
        change(&mut task);
        let id = version.id();
        let head = ReferenceHead {
            name: task.reference.clone(),
            publisher: "alice".parse().unwrap(),
            summary: (&reference.base().unwrap().card).into(),
            base: version.base,
            current: id,
            n_conditions: version.columns.len() as u64,
            n_changes: 1,
        };
        let task = TaskRecord {
            id: TaskId(1),
            task,
            publisher: "alice".parse().unwrap(),
            published_ms: 0,
            state: TaskState::Open,
            assignments: BTreeMap::new(),
        };
        Self {
            reference: head,
            version,
            earlier: vec![],
            task,
            signatures: BTreeMap::new(),
            blobs: reference.files().map(|(blob, path)| (blob, std::fs::read(path).unwrap())).collect(),
            uploaded: vec![],
            submissions: vec![],
            lapses: 0,
            remembers: false,
            n_renewals: 0,
            anchored: Anchored::default(),
            begun_anew: 0,
            losses: vec![],
            unlisted: 0,
            spoilt: 0,
            given_up: None,
            shuts_out: false,
            ahead_ms: 0,
        }
    }

    /// The bytes of a blob as the coordinator's disk has them.
    fn bytes_of(&mut self, blob: BlobRef) -> Vec<u8> {
        let mut bytes = self.blobs[&blob].clone();
        if self.spoilt > 0 {
            self.spoilt -= 1;
            bytes[0] ^= 1;
        }
        bytes
    }

    fn answer(&mut self, who: &Principal, request: Request) -> Result<Reply, Refusal> {
        let Principal::Site(site) = who else { panic!("{who} asked") };
        let epoch = self.task.assignments.get(site).map_or(0, |held| held.epoch);
        match request {
            Request::ListTaskHeads { .. } if self.unlisted > 0 => {
                self.unlisted -= 1;
                Err(Refusal::Invalid { reason: "the answer is larger than 4194304 bytes; ask for less".to_owned() })
            }
            Request::ListTaskHeads { .. } => {
                let TaskRecord { id, task, publisher, published_ms, state, assignments } = self.task.clone();
                let own = assignments.get(site).map(AssignmentHead::from);
                let head = TaskHead { id, task, publisher, published_ms, state, n_assigned: 1, n_accepted: 0, own };
                Ok(Reply::TaskHeads(Page { items: vec![head], more: false }))
            }
            Request::Status => Ok(Reply::Status(status())),
            Request::ShowTime => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
                Ok(Reply::Time(now.saturating_add_signed(self.ahead_ms)))
            }
            Request::ShowReferenceHead { .. } => Ok(Reply::ReferenceHead(Box::new(self.reference.clone()))),
            Request::ShowSignature { of } => Ok(Reply::Signature(self.signatures.get(&of).cloned().map(Box::new))),
            Request::ListConditions { owner, version, .. } => {
                let is_owners = |key: &ConditionKey| owner.as_ref().is_none_or(|owner| key.owner() == owner);
                let held = self.earlier.iter().find(|earlier| earlier.id() == version).unwrap_or(&self.version);
                let items = held.columns.clone().into_iter().filter(|(key, _)| is_owners(key)).collect();
                Ok(Reply::Conditions(Page { items, more: false }))
            }
            Request::Claim { .. } => {
                let held = self.task.assignments.get(site).is_some_and(|a| a.state == AssignmentState::Assigned);
                let epoch = if held { epoch } else { epoch + 1 };
                let state = AssignmentState::Assigned;
                let held = AssignmentRecord { epoch, state, lease_until_ms: u64::MAX, progress: None };
                self.task.assignments.insert(site.clone(), held);
                Ok(Reply::Assigned { epoch, lease_until_ms: u64::MAX })
            }
            Request::Renew { progress, .. } => {
                self.n_renewals += 1;
                self.losses.push(progress.loss);
                Ok(Reply::Assigned { epoch, lease_until_ms: u64::MAX })
            }
            Request::ShowAnchor => Ok(Reply::Anchored(self.anchored)),
            Request::Anchor { after, hashes } => {
                // A log that was begun anew is taken, and stands as such.
                let follows = after == self.anchored;
                self.begun_anew += u32::from(!follows);
                self.anchored = Anchor { after, hashes, follows }.end();
                Ok(Reply::Released)
            }
            Request::GiveUp { reason, .. } => {
                self.given_up = Some(reason.clone());
                let held = self.task.assignments.get_mut(site).unwrap();
                held.state = AssignmentState::GivenUp { reason };
                Ok(Reply::Released)
            }
            Request::Submit(submission) => {
                self.submissions.push(submission);
                if self.lapses > 0 {
                    self.lapses -= 1;
                    self.task.assignments.get_mut(site).unwrap().state = AssignmentState::Lapsed;
                    return Err(Refusal::Stale { reason: "the lease has lapsed".to_owned() });
                }
                if self.remembers {
                    let (submission, version) = (self.submissions[0].clone(), Some(self.task.task.version));
                    let state = AssignmentState::Accepted { submission, at_ms: 0, version };
                    self.task.assignments.get_mut(site).unwrap().state = state;
                }
                Ok(Reply::Accepted { version: None })
            }
            other => panic!("a worker asked {other:?}"),
        }
    }
}

fn status() -> StatusRecord {
    let node = NodeId::new(1).unwrap();
    StatusRecord {
        node,
        leader: Some(node),
        term: 1,
        applied: 1,
        voters: vec![node],
        references: 1,
        sites: 1,
        open_tasks: 1,
        blobs: 1,
        blob_bytes: 1,
    }
}

async fn serve(state: Arc<Mutex<State>>, connection: Connection) {
    while let Ok(stream) = connection.accept_stream().await {
        let (state, connection) = (state.clone(), connection.clone());
        tokio::spawn(async move {
            // A worker that was killed breaks its streams.
            let _ = serve_stream(&state, stream, &connection).await;
        });
    }
}

async fn serve_stream(state: &Mutex<State>, mut stream: Stream, connection: &Connection) -> Result<(), Error> {
    let Some(open) = stream.recv_frame(StreamOpen::LIMIT).await? else { return Ok(()) };
    match frame::decode(&open).unwrap() {
        StreamOpen::Control(hello) => {
            let (who, node) = (connection.peer().principal.clone(), NodeId::new(1).unwrap());
            let mut session = CoordinatorSession::open(who.clone(), &hello, node, Some(node)).unwrap();
            loop {
                while let Some(frame) = session.poll_frame() {
                    stream.send_frame(&frame).await?;
                }
                let Some(frame) = stream.recv_frame(ToCoordinator::LIMIT).await? else { return Ok(()) };
                if let Some(asked) = session.handle_frame(&frame).unwrap() {
                    let answer = state.lock().unwrap().answer(&who, asked.body);
                    session.handle_answer(asked.id, answer);
                }
            }
        }
        StreamOpen::Put(blob) => take(state, stream, blob).await,
        StreamOpen::Get { blob, from_chunk } => give(state, stream, blob, from_chunk).await,
        StreamOpen::Raft | StreamOpen::RaftFrom { .. } | StreamOpen::Relay(_) | StreamOpen::Peer(_) => {
            panic!("a worker opened a stream of coordinators")
        }
    }
}

async fn take(state: &Mutex<State>, mut stream: Stream, blob: BlobRef) -> Result<(), Error> {
    let mut receiver = ChunkReceiver::new(blob).unwrap();
    stream.send_frame(&frame::encode(&PutReply::Send { from_chunk: 0 }).unwrap()).await?;
    let mut bytes = Vec::new();
    while !receiver.is_complete() {
        let Some(frame) = stream.recv_frame(Chunk::LIMIT).await? else { return Ok(()) };
        let chunk: Chunk = frame::decode(&frame).unwrap();
        receiver.handle_chunk(&chunk).unwrap();
        bytes.extend_from_slice(&chunk.bytes);
    }
    receiver.finish().unwrap();
    state.lock().unwrap().uploaded.push(blob);
    state.lock().unwrap().blobs.insert(blob, bytes);
    stream.send_frame(&frame::encode(&PutReply::Durable).unwrap()).await?;
    stream.finish().await
}

async fn give(state: &Mutex<State>, mut stream: Stream, blob: BlobRef, from_chunk: u64) -> Result<(), Error> {
    let bytes = state.lock().unwrap().bytes_of(blob);
    stream.send_frame(&frame::encode(&GetReply::Sending).unwrap()).await?;
    let mut sender = ChunkSender::new(blob, from_chunk).unwrap();
    while let Some(piece) = sender.poll_piece() {
        let chunk = sender.handle_read(bytes[piece.offset as usize..][..piece.size].to_vec()).unwrap();
        stream.send_frame(&frame::encode(&chunk).unwrap()).await?;
    }
    stream.finish().await
}
