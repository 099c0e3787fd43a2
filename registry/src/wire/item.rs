//! Resources as they are streamed. The payload is sent as it is stored, without encoding it again.

use switchboard::{pb::registry, stream::Streamed};

use crate::domain::items::Item;

impl Streamed for Item {
    fn to_wire(&self) -> registry::Resource {
        registry::Resource {
            name: self.key.to_string(),
            create_revision: self.create_revision.get(),
            revision: self.revision.get(),
            payload: Some(prost_types::Any {
                type_url: self.type_url.to_owned(),
                value: self.value.to_vec(),
            }),
            requires: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use switchboard::{history::View, names::Revision};

    use super::*;
    use crate::{
        feed::run::{PART_BYTES_MAX, Run},
        testing::History,
    };

    #[test]
    fn watch_and_subscribe_decode_the_same_bytes_and_no_part_is_too_large() {
        let history = History::new();
        let name = |id: usize| format!("models/{}{id}", "m".repeat(50));
        let names: Vec<String> = (0..2_000).map(name).collect();
        history.commit(names.iter().map(|name| (&**name, 10)));
        history.delete(names[..1_000].iter().map(|name| &**name));
        let state = history.state();
        let snapshot = Run::snapshot(&state, View::Config);
        let delta = Run::delta(&state, View::Config, Revision::ZERO);
        let frames: Vec<Bytes> = [snapshot, delta].iter().flat_map(Run::frames).collect();
        assert!(frames.len() > 6);
        for frame in frames {
            let watch = registry::WatchResponse::decode(&*frame).unwrap();
            let subscribe = registry::SubscribeResponse::decode(&*frame).unwrap();
            assert_eq!(watch.encode_to_vec(), frame);
            assert_eq!(subscribe.encode_to_vec(), frame);
            assert!(frame.len() <= PART_BYTES_MAX, "{}", frame.len());
        }
    }

    #[test]
    fn a_payload_is_streamed_as_it_is_stored() {
        let history = History::with_revisions(2);
        let state = history.state();
        let item = state.items.get("models/a").unwrap();
        let resource = item.to_wire();
        assert_eq!((resource.create_revision, resource.revision), (1, 2));
        let payload = resource.payload.as_ref().unwrap();
        assert_eq!(payload.type_url, item.type_url);
        assert_eq!(payload.value, item.value);
    }
}
