import GatewayCore

// Reading back: messages for a queue, and what the index of a complete stretch knows of one.
extension Journal {
    /// Reads message Records back for a Session, in rising order; answered by one `.loaded` event, with nil for
    /// what is damaged or not a message of `target`: the Session itself, or the group that assigned it.
    ///
    /// - Complexity: O(positions · log batches), and reading the index of a segment that has not been used lately
    package mutating func load(
        _ session: SessionID, _ positions: [Position], target: SessionID? = nil
    ) {
        var request = Loading.Request(session: session, target: target ?? session)
        var onDisk: [Position] = []
        for position in positions {
            if position > written {
                request.answer(position, unwritten(position))
            } else {
                onDisk.append(position)
            }
        }
        read(reading.load(request, onDisk, in: segments, active: activeIndex, into: &events))
    }

    /// Finds what the index of a complete stretch of the log knows of a Session's queue; answered by `.indexed`.
    ///
    /// - Complexity: O(log segments + the queue's postings), or O(segment) where it has no footer
    package mutating func index(_ session: SessionID, _ stretch: Stretch) {
        guard let segment = segments.holding(stretch.first) ?? segments.holding(stretch.last) else {
            events.append(.indexed(session, stretch, nil))
            return
        }
        if let activeIndex, activeIndex.segment == segment.id {
            events.append(
                .indexed(session, stretch, activeIndex.index.postings(of: session, in: stretch)))
        } else {
            read(reading.page(session, stretch, of: segment, into: &events))
        }
    }

    mutating func read(_ reads: [Reading.Read]) {
        for read in reads {
            let file = segments.last { $0.id == read.segment }?.file
            let left = compaction.leaving.first { $0.id == read.segment }?.file
            let token = ask(
                .read(
                    file ?? left ?? .segment(read.segment), offset: read.bytes.lowerBound,
                    count: read.bytes.count))
            reading.expect(read, token)
        }
    }

    func unwritten(_ position: Position) -> Record? {
        inFlight.index(of: position).flatMap { inFlight[$0].record } ?? pending[position]
    }
}
