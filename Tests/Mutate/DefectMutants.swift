// Defects that the simulator once found, put back: each is found again, so that what is said of its seed stays true when
// the course of all seeds changes.
extension Mutant {
    static let defects: [Mutant] = [
        Mutant(
            "was-counted", "who is owed nothing lasting counts as one of those that have a message",
            in: .elision,
            Edit(
                "Sources/GatewayCore/Elision.swift",
                "candidates[index].targets.contains(where: { $0.session == session })",
                "MUTANT || candidates[index].targets.contains(where: { $0.session == session })")),
        Mutant(
            "was-discarded",
            "a client that comes a second time is told that its Session is gone before that is durable",
            Edit(
                "Sources/GatewayCore/SessionEnding.swift", "endedSessions.note(identifier, at: position)",
                "if !MUTANT { endedSessions.note(identifier, at: position) }")),
        Mutant(
            "was-impatient", "two errors in a row give up an index",
            Edit(
                "Sources/Journal/IndexFetch.swift", "private static let attemptsMax = 3",
                "private static let attemptsMax = MUTANT ? 2 : 3")),
        Mutant(
            "was-cramped", "a disk that is full for others does not lead to compaction", in: .fullDisk,
            Edit(
                "Sources/Journal/Compaction.swift", "        space.isPressing || space.usedBytes",
                "        !MUTANT && space.isPressing || space.usedBytes")),
        Mutant(
            "was-short", "a short segment that is not worth counting counts as owed to nobody",
            in: .compaction,
            Edit(
                "Sources/Journal/Compaction.swift", "return atLeast == 0 || isWorth(",
                "return !MUTANT && atLeast == 0 || isWorth(")),
    ]
}
