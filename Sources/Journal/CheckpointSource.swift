import GatewayCore

/// The state that a checkpoint stands for.
package protocol CheckpointSource {
    /// The Records that rebuild it.
    func snapshot(_ body: (Record) -> Void)
    /// Whether any message among these Records is still owed to someone.
    func owes(from first: Position, through last: Position) -> Bool
    /// How many deliveries need a message among these Records, or a few more; it never grows for Records that
    /// are complete, but by what neighbours add.
    func owedCount(in stretch: Stretch) -> Int
    /// Whether the message of a delivery is still owed by the queue that a message Record names it in.
    func needs(_ session: SessionID, _ delivery: Delivery) -> Bool
    /// Whether that is so for all these deliveries; no where that is not seen at a glance.
    func needsAll(_ session: SessionID, _ deliveries: ClosedRange<Delivery>) -> Bool
    /// The messages in a stretch that are owed otherwise: their Records name no queue that still has them.
    func strayPositions(in stretch: Stretch) -> Set<Position>
}

extension CheckpointSource {
    package func needsAll(_ session: SessionID, _ deliveries: ClosedRange<Delivery>) -> Bool { false }
}

extension DurableState: CheckpointSource {}
