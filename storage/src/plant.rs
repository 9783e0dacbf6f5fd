//! Faults planted on purpose, one at a time, of the kind that real systems had: each must be found by the simulator
//! (`chaos-tests/sim/tests/planted.rs`). Each crate has those of its own code, by [`plants!`](crate::plants). Only the
//! feature `plant` has them, and no release can be built with it.

#[cfg(all(feature = "plant", not(debug_assertions)))]
compile_error!("planted faults are never built into a release");

/// The faults that can be planted into a crate: an enum `Fault` with what each does, and `is`, which asks for one.
#[macro_export]
macro_rules! plants {
    ($($(#[doc = $text:literal])+ $name:ident,)*) => {
        /// A fault that can be planted here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[doc = $text])+ $name,)*
        }

        impl Fault {
            /// Every fault that can be planted here.
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];

            /// Its name, which no fault of another crate has.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Fault::$name => stringify!($name),)*
                }
            }

            /// What it does, in one line.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self {
                    $(Fault::$name => concat!($($text),+).trim_ascii(),)*
                }
            }
        }

        /// Whether this fault is planted. Never in a build without the feature.
        #[must_use]
        #[inline(always)]
        pub fn is(fault: Fault) -> bool {
            $crate::plant::is_planted(fault.name())
        }
    };
}

plants! {
    /// A chunk of a large body is lost, and the row that makes the body live does not require it.
    BodyLosesChunk,
    /// A record in the middle of the log that does not check is skipped.
    LogTailWithGap,
    /// Rows that a snapshot does not have stay where it is put in place.
    SnapshotOverOldRows,
    /// Ids of commands that are drawn in one millisecond are the same.
    CommandIdsRepeat,
    /// Bodies that are made in one second have one id.
    BodyIdsRepeat,
}

#[cfg(feature = "plant")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Plants the fault of this name in everything that runs in this thread, or none.
#[cfg(feature = "plant")]
pub fn set(name: Option<&'static str>) {
    PLANTED.set(name);
}

/// Whether any fault is planted.
#[must_use]
pub fn is_any_planted() -> bool {
    #[cfg(feature = "plant")]
    return PLANTED.get().is_some();
    #[cfg(not(feature = "plant"))]
    false
}

/// Whether the fault of this name is planted.
#[cfg(feature = "plant")]
#[must_use]
pub fn is_planted(name: &'static str) -> bool {
    PLANTED.get() == Some(name)
}

/// Whether the fault of this name is planted: never.
#[cfg(not(feature = "plant"))]
#[must_use]
#[inline(always)]
pub const fn is_planted(_: &'static str) -> bool {
    false
}
