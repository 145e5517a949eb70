// Defects that the simulator once found, put back, so that what is said of their seeds stays true when the course of all
// seeds changes. Those that one seed in thousands meets have tests of their own only: they are not found within a hunt.
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
            "was-short", "a short segment that is not worth counting counts as owed to nobody",
            in: .compaction,
            Edit(
                "Sources/Journal/Compaction.swift", "return atLeast == 0 || isWorth(",
                "return !MUTANT && atLeast == 0 || isWorth(")),
        Mutant(
            "was-number", "the number of a lost Record is given to another message", in: .damage,
            Edit(
                "Sources/GatewayCore/Gateway.swift", "self.state.passOverLost()",
                "if !MUTANT { self.state.passOverLost() }")),
        Mutant(
            "was-handshake", "a damaged message that was sent is let go without the end of its handshake",
            in: .damage,
            Edit(
                "Sources/GatewayCore/Delivering.swift", "guard isCommitted, session.mayReleaseUnproven(",
                "guard !MUTANT, isCommitted, session.mayReleaseUnproven(")),
        Mutant(
            "was-impatient", "what the disk refuses to read a few times in a row is given up",
            Edit(
                "Sources/Journal/Patience.swift", "let counts = refusal == .ofTheMedium && isWritable",
                "let counts = refusal == .ofTheMedium && isWritable; if MUTANT, refusals == 2 { return nil }")
        ),
    ]
}
