import GatewayCore

/// The state that a checkpoint stands for.
package protocol CheckpointSource {
    /// The Records that rebuild it.
    func snapshot(_ body: (Record) -> Void)
    /// Whether any message among these Records is still owed to someone.
    func owes(from first: Position, through last: Position) -> Bool
}

extension DurableState: CheckpointSource {}
