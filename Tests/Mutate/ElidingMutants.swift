// Messages that are not written because everyone has them: rules E1 to E7 of the journal's design.
extension Mutant {
    private static let elision = "Sources/GatewayCore/Elision.swift"
    private static let publishing = "Sources/GatewayCore/Publishing.swift"
    private static let pending = "Sources/Journal/PendingRecords.swift"
    private static let policy = "Sources/Journal/CommitPolicy.swift"
    private static let journal = "Sources/Journal/Journal.swift"

    static let eliding: [Mutant] = [
        Mutant(
            "E1", "a retained message goes unwritten",
            Edit(elision, "guard record.retained == .none,", "guard MUTANT || record.retained == .none,")),
        Mutant(
            "E2", "a message goes unwritten although somebody who is away is owed it",
            Edit(
                elision, "guard isAtHand(target.session, at: now) else { return false }",
                "guard MUTANT || isAtHand(target.session, at: now) else { return false }"),
            Edit(
                elision, "candidates.add(position, targets)",
                "candidates.add(position, MUTANT ? targets.filter { isFlowOpen($0.session) } : targets)")),
        Mutant(
            "E3", "a message goes unwritten when the first of its receivers has it",
            Edit(elision, "return owing == 1", "return MUTANT || owing == 1")),
        Mutant(
            "E4", "a message lingers for longer than the window",
            Edit(
                policy, "demand.lingering?.advanced(byMilliseconds: window)",
                "MUTANT ? nil : demand.lingering?.advanced(byMilliseconds: window)")),
        Mutant(
            "E4-gone", "what a receiver was sent that is gone lingers on",
            Edit(
                journal, "        pending.hasten(position)", "        if !MUTANT { pending.hasten(position) }"
            )
        ),
        Mutant(
            "E5", "a message lingers although somebody who is away is owed it",
            Edit(
                publishing, "window != .latency && mayBeElided(record, at: now)",
                "window != .latency && (MUTANT || mayBeElided(record, at: now))")),
        Mutant(
            "E6", "messages that lingered in vain are written one by one",
            Edit(
                pending, "            if slot.isHole { return true }",
                "            if MUTANT, taken > 0, slot.kind == .lingering { return false }\n"
                    + "            if slot.isHole { return true }")),
        Mutant(
            "E7", "a QoS 2 message lingers",
            Edit(
                publishing, "case .exactlyOnce: window.urgency(else: .handshake)",
                "case .exactlyOnce:\n                MUTANT && mayBeElided(record, at: now)\n"
                    + "                    ? .elidable : window.urgency(else: .handshake)")),
    ]
}
