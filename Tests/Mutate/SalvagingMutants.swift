// What is kept when durable bytes are damaged: promise P6.
extension Mutant {
    static let salvaging: [Mutant] = [
        Mutant(
            "salvage-batches", "behind a damaged batch its segment is given up", in: .damage,
            Edit(
                "Sources/Journal/Recovery.swift", "            offset = following ?? limit",
                "            offset = MUTANT ? limit : following ?? limit")),
        Mutant(
            "salvage-fallback", "segments go that the checkpoint before the newest needs", in: .damage,
            Edit(
                "Sources/Journal/JournalCheckpoints.swift", "if segment.last <= fallback {",
                "if segment.last <= (MUTANT ? position : fallback) {")),
    ]
}
