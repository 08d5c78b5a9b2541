//! An assembler for classic BPF, the kernel's language for socket filters
//! (`Documentation/networking/filter.rst`): two registers, A and X, loads from the frame, and jumps that
//! only go forward. A load from behind the frame's end rejects it.

use socket2::SockFilter;

/// One instruction, as `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// How many instructions a condition that holds skips,
    pub(super) jt: u8,
    /// and one that does not.
    pub(super) jf: u8,
    pub(super) k: u32,
}

/// A place in the program to go to; every one must be placed once, behind all that go there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(usize);

/// A program being written.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    code: Vec<Instruction>,
    /// Instructions that go somewhere, and where.
    jumps: Vec<(usize, Label)>,
    /// Where each label was placed.
    places: Vec<Option<usize>>,
}

/// What the kernel knows of a frame beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// `PACKET_OUTGOING` or how the frame was addressed.
    PacketType,
    /// Another random number for each frame.
    Random,
}

/// How much of the frame a load takes, from the highest byte on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    Byte,
    Half,
    Word,
}

impl Assembler {
    /// A label to be placed.
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// What goes to `label` goes on here.
    pub(super) fn place(&mut self, label: Label) {
        if let Some(place) = self.places.get_mut(label.0) {
            *place = Some(self.code.len());
        }
    }

    /// A = what is at `at` of the frame.
    pub(super) fn load(&mut self, size: Size, at: u32) {
        self.plain(libc::BPF_LD | size.code() | libc::BPF_ABS, at);
    }

    /// A = what is at X + `at` of the frame.
    pub(super) fn load_from_x(&mut self, size: Size, at: u32) {
        self.plain(libc::BPF_LD | size.code() | libc::BPF_IND, at);
    }

    /// A = what the kernel knows.
    pub(super) fn load_beside(&mut self, what: Beside) {
        self.plain(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, what.offset());
    }

    /// X = length of the IPv4 header at `at`.
    pub(super) fn ipv4_header_to_x(&mut self, at: u32) {
        self.plain(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, at);
    }

    /// X = `value`
    pub(super) fn set_x(&mut self, value: u32) {
        self.plain(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM, value);
    }

    /// X = A
    pub(super) fn a_to_x(&mut self) {
        self.plain(libc::BPF_MISC | libc::BPF_TAX, 0);
    }

    /// A = those bits of A that `mask` has
    pub(super) fn and(&mut self, mask: u32) {
        self.plain(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask);
    }

    /// A = A + `value`
    pub(super) fn add(&mut self, value: u32) {
        self.plain(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, value);
    }

    /// A = A shifted left by `bits`
    pub(super) fn shift_left(&mut self, bits: u32) {
        self.plain(libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K, bits);
    }

    /// Goes to `label`, however far.
    pub(super) fn go(&mut self, label: Label) {
        self.jump(libc::BPF_JA, 0, label);
    }

    /// Goes to `label` if A is `value`. As with all conditions, at most 255 instructions on.
    pub(super) fn if_equal(&mut self, value: u32, label: Label) {
        self.jump(libc::BPF_JEQ | libc::BPF_K, value, label);
    }

    /// Goes to `label` if A is X.
    pub(super) fn if_equal_to_x(&mut self, label: Label) {
        self.jump(libc::BPF_JEQ | libc::BPF_X, 0, label);
    }

    /// Goes to `label` if A has any bit of `mask`.
    pub(super) fn if_any_bit(&mut self, mask: u32, label: Label) {
        self.jump(libc::BPF_JSET | libc::BPF_K, mask, label);
    }

    /// The end: so many bytes of the frame are taken at most, with 0 it is rejected.
    pub(super) fn take(&mut self, bytes: u32) {
        self.plain(libc::BPF_RET | libc::BPF_K, bytes);
    }

    /// The program; `None` if a label is not placed, or too far off.
    pub(super) fn finish(mut self) -> Option<Vec<Instruction>> {
        for (at, label) in self.jumps {
            let place = self.places.get(label.0).copied().flatten()?;
            let skipped = place.checked_sub(at + 1)?;
            let instruction = self.code.get_mut(at)?;
            if u32::from(instruction.code) == libc::BPF_JMP | libc::BPF_JA {
                instruction.k = u32::try_from(skipped).ok()?;
            } else {
                instruction.jt = u8::try_from(skipped).ok()?;
            }
        }
        Some(self.code)
    }

    fn plain(&mut self, code: u32, k: u32) {
        self.code.push(Instruction { code: code as u16, jt: 0, jf: 0, k }); // all codes are below 256
    }

    fn jump(&mut self, kind: u32, k: u32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.plain(libc::BPF_JMP | kind, k);
    }
}

impl Instruction {
    pub(super) const fn for_socket(self) -> SockFilter {
        SockFilter::new(self.code, self.jt, self.jf, self.k)
    }
}

impl Beside {
    /// The address at which classic BPF has it.
    pub(super) const fn offset(self) -> u32 {
        let of = match self {
            Self::PacketType => libc::SKF_AD_PKTTYPE,
            Self::Random => libc::SKF_AD_RANDOM,
        };
        (libc::SKF_AD_OFF + of).cast_unsigned()
    }
}

impl Size {
    const fn code(self) -> u32 {
        match self {
            Self::Byte => libc::BPF_B,
            Self::Half => libc::BPF_H,
            Self::Word => libc::BPF_W,
        }
    }
}
