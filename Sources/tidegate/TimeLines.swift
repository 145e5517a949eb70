import GatewayCore
import Journal
import Operations

// What is said about time that passed while nobody was there.

extension LogLine {
    /// nil when it is not worth a line.
    init?(_ resumed: Resumption) {
        guard let off = resumed.offMilliseconds, off >= 1000 else { return nil }
        self.init(
            .notice, .gateway,
            "was off for \(Duration.words(Int64(clamping: off))) by the uptime of this machine; deadlines count it"
        )
    }

    /// nil for what is told elsewhere.
    init?(_ finding: WallWitness.Finding) {
        switch finding {
        case .unsynchronised:
            self.init(
                .notice, .gateway,
                "the wall clock is not synchronised: how long the gateway was off counts for no deadline until it is"
            )
        case .impossible:
            self.init(
                .warning, .gateway,
                "the wall clock is called synchronised and is earlier than this software: it is not believed")
        case .stepped(let milliseconds):
            self.init(
                .notice, .gateway,
                "the wall clock stepped \(milliseconds < 0 ? "back" : "ahead") by \(Duration.words(milliseconds)); "
                    + "no deadline moves")
        case .believed:
            self.init(.info, .gateway, "the wall clock is synchronised and steady")
        case .wasOff:
            return nil
        case .offForTooLong(let milliseconds):
            self.init(
                .error, .gateway,
                "by the wall clock the gateway was off for \(Duration.words(milliseconds)), which is not believed: "
                    + "nothing expires by it")
        case .ahead(let milliseconds):
            self.init(
                .warning, .gateway,
                "the wall clock is \(Duration.words(milliseconds)) ahead of the time that passed: ignored")
        case .behind(let milliseconds):
            self.init(
                .warning, .gateway,
                "the wall clock is \(Duration.words(milliseconds)) behind the time that passed: ignored")
        }
    }
}
