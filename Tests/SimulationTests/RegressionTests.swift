import Simulation
import Testing

/// A seed that once found a defect, with what it was.
struct KnownSeed: Sendable, CustomTestStringConvertible {
    let seed: UInt64
    let cause: String
    var seconds: Int?

    init(_ seed: UInt64, _ cause: String, seconds: Int? = nil) {
        self.seed = seed
        self.cause = cause
        self.seconds = seconds
    }

    var testDescription: String { "\(seed): \(cause)" }
}

@Suite("Seeds that once broke a promise")
struct RegressionTests {
    static let known = [
        KnownSeed(
            951, "who is owed nothing lasting counted as one of those that have a message, and it was elided"),
        KnownSeed(3061, "a Session that was discarded came back, though its client was told that it is gone"),
        KnownSeed(64, "two read errors in a row while a segment was scanned gave up the messages of a page"),
        KnownSeed(52, "a short segment, not worth counting, counted as owed to nobody and was merged away"),
        KnownSeed(10666, "acknowledgements filled a disk before a checkpoint was due that made room"),
        KnownSeed(
            5722, "the remains of an unfinished merged file passed for a new segment's first page"),
        KnownSeed(2770, "SUBACK did not wait for what is retained, and the power failed between the two"),
        KnownSeed(2167, "FORMAT was damaged and the only segment never finished: it was no store any more"),
        KnownSeed(4897, "more damaged messages in a row than one Record settles: a queue stood still"),
        KnownSeed(417, "a damaged message was let go whose identifier its receiver held, at QoS 2"),
        KnownSeed(11587, "the same of a message that was missing in the index of its segment"),
        KnownSeed(21252, "reading ahead filled the memory of a queue one and a half times"),
        KnownSeed(20187, "a start kept in memory what the defaults allow, and not what the plan does"),
        KnownSeed(2195, "a QoS 2 message that had expired came after a power cut, behind a younger one"),
        KnownSeed(2756, "a full disk for which a checkpoint came too late stayed full"),
        KnownSeed(1616, "what the disk refused to read for some seconds was given up, and was there"),
        KnownSeed(427, "a lost Record's number, and so its identifier, was given to another message"),
    ]

    @Test("keep all of them now", arguments: known)
    func keeps(known: KnownSeed) {
        var scenario = Scenario(seed: known.seed)
        if let seconds = known.seconds { scenario.seconds = seconds }
        #expect(World(scenario).run().violations == [])
    }
}
