//! The thread itself: polls, takes commands, answers the coordinator, leaves.

use super::*;

/// Polls until the member leaves. Drops the consumer on this thread, which is where its last callbacks come.
pub(crate) fn run(seat: &Seat, consumer: GroupConsumer, commands: &std_mpsc::Receiver<Command>) {
    let consumer = Arc::new(consumer);
    let _ = seat.consumer.set(Arc::downgrade(&consumer));
    let mut batch = Vec::with_capacity(BATCH);
    let left = loop {
        match commands.try_recv() {
            Ok(Command::Read(partition, from, reply)) => {
                seat.flush(&mut batch);
                let _ = reply.send(seat.begin(&consumer, partition, from));
                // All partitions of an assignment begin at once.
                continue;
            }
            Ok(Command::Leave(reply)) => break Some(reply),
            Err(std_mpsc::TryRecvError::Disconnected) => break None,
            Err(std_mpsc::TryRecvError::Empty) => {}
        }
        seat.hand_over(&consumer);
        seat.rejoin(&consumer);
        if seat.waiting.load(Ordering::Acquire) > WAITING {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let wait = if batch.is_empty() { TICK } else { Duration::ZERO };
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                seat.connected(true);
                seat.accept(&message, &mut batch);
                if batch.len() >= BATCH {
                    seat.flush(&mut batch);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                seat.flush(&mut batch);
                seat.caught_up(partition);
            }
            Some(Err(error)) => {
                seat.flush(&mut batch);
                if seat.trouble(&error) {
                    break None;
                }
            }
            None => seat.flush(&mut batch),
        }
    };
    leave(seat, consumer);
    if let Some(reply) = left {
        let _ = reply.send(());
    }
}

fn leave(seat: &Seat, consumer: Arc<GroupConsumer>) {
    {
        let mut state = seat.state();
        state.closing = true;
        state.revocation = None;
        for held in state.held.values() {
            held.lease.revoke();
        }
        state.held.clear();
    }
    // A member that goes before it has come stays in the group until its session ends, and others make room for it.
    let until = Instant::now() + JOINS;
    while seat.state().assignments == 0 && Instant::now() < until {
        let _ = consumer.poll(TICK);
    }
    let _ = consumer.unassign();
    consumer.unsubscribe();
    // Whoever commits or pauses just now has it for a moment; the last one to let go closes it.
    let mut consumer = consumer;
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match Arc::try_unwrap(consumer) {
            Ok(consumer) => return drop(consumer),
            Err(_) if Instant::now() > until => return,
            Err(shared) => consumer = shared,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl ClientContext for Seat {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ConsumerContext for Seat {
    fn rebalance(&self, consumer: &GroupConsumer, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, list),
            _ => self.revoked(consumer, list),
        }
    }
}
