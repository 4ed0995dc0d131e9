package steering

// A Word is one release's weights as the kernel reads them: four shares of 14
// bits, in basis points, for the version slots 1 to 4, then an 8-bit epoch in
// bits 56 to 63. The zero shares mean that stable gets everything.
//
// Slot 1 owns the buckets from the bottom up, [0, w1); slot 2 from the top
// down, [10000-w2, 10000); slot 3 lies above slot 1 and slot 4 below slot 2.
// So changing w1 or w2 only moves clients between that version and stable, as
// long as slots 3 and 4 are empty; with those it cannot hold for all.
type Word uint64
