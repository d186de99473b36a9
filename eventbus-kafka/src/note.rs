pub(crate) const NOTE_BYTES: usize = 2_800;
