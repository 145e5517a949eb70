import GatewayCore
import Testing

@testable import Journal

/// Stores that once broke a rule of `FuzzedStore`, found by `make fuzz`, and others like them.
///
/// A finding is added with its cause, as the bytes of the file that the fuzzer wrote.
@Suite("What fuzzing finds in recovery")
struct StoresFoundByFuzzing {
    @Test("the inputs that the fuzzer starts from hold what they should, and break nothing")
    func seeds() throws {
        for seed in FuzzedStore.seeds {
            let store = try #require(FuzzedStore(seed))
            #expect(store.brokenRule() == nil)
            var disk = store.disk
            var count = 0
            let log = try Recovery.recover(&disk) { _, _ in count += 1 }
            // Some Records in the examples name others that come later, and a checkpoint must not.
            #expect(count > 0 || !log.report.setAside.isEmpty)
            #expect(log.report.damaged.isEmpty && log.report.tornTails.isEmpty)
        }
    }
}
