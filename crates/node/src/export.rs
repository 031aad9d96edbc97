//! The accepted transactions as binlog files, for whoever asks.
//!
//! They come from this node's own feed, so a file here is what a consumer of the feed is sent.

use std::sync::Arc;
use std::time::Duration;

use quorate_binlog::{
    ChecksumAlgorithm, Event, EventHeader, EventType, FLAG_ARTIFICIAL, MAGIC, Rotate,
};
use quorate_mysql_wire::{
    ChecksumRequest, ConnectOptions, Connection, DumpPacket, DumpReader, EventChunk,
    ReplicaConnection, ReplicaOptions,
};
use quorate_net::{Endpoint, Net};
use quorate_types::{GtidSet, Secret, Uuid, chain};
use quorate_wire::v1::ExportReply;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages on their way, of at most a piece of an event each: whoever reads slowly waits here.
const REPLIES: usize = 4;
/// The feed shows no consumer's id to anybody; 0 is `mysqlbinlog`'s.
const SERVER_ID: u32 = 1;
const SILENCE: Duration = Duration::from_secs(1);

/// A message of the stream, or why it ends.
pub(crate) type Exported = Result<ExportReply, Status>;
/// Starts an export of what is outside of a set.
pub(crate) type Export = Arc<dyn Fn(GtidSet) -> ReceiverStream<Exported> + Send + Sync>;

/// What is needed to reach the feed.
#[derive(Clone)]
pub(crate) struct Exporter<N> {
    pub(crate) net: N,
    pub(crate) feed: Endpoint,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) uuid: Uuid,
}

impl<N: Net> Exporter<N> {
    pub(crate) fn start(&self, executed: GtidSet) -> ReceiverStream<Exported> {
        let (replies, receiver) = mpsc::channel(REPLIES);
        let exporter = self.clone();
        tokio::spawn(async move {
            if let Err(status) = exporter.run(executed, &replies).await {
                // Nobody may be listening any more.
                let _ = replies.send(Err(status)).await;
            }
        });
        ReceiverStream::new(receiver)
    }

    async fn run(&self, executed: GtidSet, replies: &mpsc::Sender<Exported>) -> Result<(), Status> {
        let mut dump = self.dump(&executed).await?;
        let mut skipping = false;
        loop {
            let packet = dump.next().await.map_err(|error| failed(&error))?;
            let chunk = match packet {
                DumpPacket::Eof => return Ok(()),
                DumpPacket::Error(error) => {
                    return Err(Status::failed_precondition(error.message));
                }
                DumpPacket::Event(chunk) => chunk,
            };
            let mut reply = ExportReply::default();
            if chunk.first {
                let header = EventHeader::parse(&chunk.bytes).map_err(|error| failed(&error))?;
                let artificial = header.flags & FLAG_ARTIFICIAL != 0;
                skipping = artificial
                    || matches!(
                        header.event_type,
                        EventType::HEARTBEAT | EventType::HEARTBEAT_V2
                    );
                if artificial && header.event_type == EventType::ROTATE {
                    reply = begin_file(&chunk)?;
                }
            }
            if !skipping {
                reply.data = chunk.bytes;
            }
            let empty = reply.file.is_empty() && reply.data.is_empty();
            if !empty && replies.send(Ok(reply)).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn dump(&self, executed: &GtidSet) -> Result<DumpReader, Status> {
        let io = self.net.connect(&self.feed).await;
        let options = ConnectOptions {
            user: self.user.clone(),
            password: self.password.clone(),
            ..ConnectOptions::default()
        };
        let io = io.map_err(|error| failed(&error))?;
        let connection = Connection::connect(io, &options).await;
        let replica = ReplicaOptions {
            server_id: SERVER_ID,
            server_uuid: self.uuid,
            heartbeat_period: SILENCE,
            checksum: ChecksumRequest::AsSource,
            semi_sync: false,
        };
        let connection = connection.map_err(|error| failed(&error))?;
        let connection = ReplicaConnection::prepare(connection, &replica).await;
        let connection = connection.map_err(|error| failed(&error))?;
        let dump = connection.dump_gtid_to_the_end(executed).await;
        Ok(dump.map_err(|error| failed(&error))?.0)
    }
}

/// The stream says in an event of its own which file comes: it is in no file.
fn begin_file(chunk: &EventChunk) -> Result<ExportReply, Status> {
    let event = Event::parse(chunk.bytes.clone(), ChecksumAlgorithm::Crc32);
    let rotate = Rotate::parse(&event.map_err(|error| failed(&error))?);
    Ok(ExportReply {
        file: rotate.map_err(|error| failed(&error))?.file,
        data: MAGIC.to_vec().into(),
    })
}

fn failed(error: &dyn std::error::Error) -> Status {
    Status::unavailable(format!("read this node's feed: {}", chain(error)))
}
