//! Topics: created, deleted, and created again.

use eventbus_core::{Result, Topic, TopicSpec};

use super::MemoryState;
use crate::step::Step;
use crate::topic::{TopicState, unknown_topic};

impl MemoryState {
    /// Creates a topic. `false` if there is one of this name.
    pub(crate) fn create_topic(&mut self, spec: &TopicSpec, step: &mut Step) -> Result<bool> {
        let topic = spec.topic.parse::<Topic>()?;
        if self.topics.contains_key(&topic) {
            return Ok(false);
        }
        self.incarnations += 1;
        self.topics.insert(topic.clone(), TopicState::new(spec.clone(), self.incarnations, &self.config));
        self.resize_groups(&topic, spec.partitions, step);
        Ok(true)
    }

    /// Deletes a topic. The progress of its groups stays, as brokers keep it; by their notes a later incarnation is
    /// told apart.
    pub(crate) fn delete_topic(&mut self, topic: &Topic, step: &mut Step) -> Result<()> {
        self.topics.remove(topic).ok_or_else(unknown_topic)?;
        self.interrupt_topic(topic, step);
        Ok(())
    }

    /// Deletes a topic and creates it again with the same settings and an empty log.
    pub(crate) fn recreate_topic(&mut self, topic: &Topic, step: &mut Step) -> Result<()> {
        let spec = self.topic(topic)?.spec.clone();
        self.delete_topic(topic, step)?;
        self.create_topic(&spec, step).map(drop)
    }
}
