import Foundation
import Testing
import Workbench

/// The scales are checked before anything is weighed: clients and link against a plain broker.
@Suite("the workbench itself", .serialized)
struct WorkbenchTests {
    @Test("clients lose and double nothing by themselves while their line is cut")
    func clientsAreCorrectPeers() throws {
        let rig = try Rig()
        let broker = try CloudBroker(in: rig.place)
        try broker.start()
        defer { broker.stop() }
        let link = try CuttableLink(to: broker.port)
        defer { link.end() }
        let ledger = Ledger()
        var clients: [Client] = []
        for version in [Client.Version.v311, .v5] {
            var subscriber = Client.Plan(id: "subscriber-\(version)", port: link.port, version: version)
            subscriber.subscriptions = [("\(version)/#", 2)]
            var publisher = Client.Plan(id: "publisher-\(version)", port: link.port, version: version)
            for qos in [1, 2] {
                publisher.publications.append(
                    .init(
                        stream: ledger.open(.up, qos: qos, name: "\(version), QoS \(qos)"),
                        topic: "\(version)/\(qos)", qos: Int32(qos), perSecond: 200))
            }
            clients += [Client(subscriber, ledger: ledger), Client(publisher, ledger: ledger)]
        }
        defer { clients.forEach { $0.end() } }
        try #require(waitUpTo(10) { clients.allSatisfy { $0.isReady } })
        clients.forEach { $0.publishing(true) }
        for round in 1...6 {
            usleep(400_000)
            let before = link.connections
            if round % 2 == 0 {
                link.cut()
            } else {
                link.cut(after: .random(in: 1...2000), round % 4 == 1 ? .towardsTarget : .fromTarget)
                #expect(waitUpTo(5) { link.isCut })
            }
            usleep(200_000)
            link.restore()
            #expect(waitUpTo(5) { link.connections >= before + 4 })
        }
        clients.forEach { $0.publishing(false) }
        waitUpTo(20) { ledger.totals().unanswered == 0 && ledger.totals().underWay == 0 }
        usleep(500_000)
        expectNothingLost(ledger, clients, atLeast: 500)
    }

    @Test("the ledger tells lost, doubled, late and unknown messages apart")
    func ledgerCounts() {
        let ledger = Ledger()
        let stream = ledger.open(.up, qos: 2, name: "s")
        for number in 1...5 { #expect(ledger.sends(stream) == number) }
        for number in 1...4 { ledger.acknowledged(stream, number) }
        ledger.refused(stream, 5)
        for number in [2, 1, 2, 4] { ledger.received(stream, number) }
        ledger.received(stream, 6)
        let totals = ledger.totals(.up, qos: 2)
        #expect(totals.sent == 5)
        #expect(totals.acknowledged == 4)
        #expect(totals.received == 3)
        #expect(totals.lost == 1)
        #expect(totals.duplicated == 1)
        #expect(totals.outOfOrder == 1)
        #expect(totals.refused == 1)
        #expect(totals.unanswered == 0)
        #expect(totals.underWay == 1)
        #expect(ledger.backlog(.up) == 1)
        #expect(ledger.strangers == 1)
        #expect(ledger.faults() == ["s: lost [3] doubled [2]"])
        #expect(ledger.totals(.down) == Ledger.Totals())
    }

    @Test("a link that is cut resets and refuses; a black hole does neither")
    func linkCuts() throws {
        let rig = try Rig()
        let broker = try CloudBroker(in: rig.place)
        try broker.start()
        defer { broker.stop() }
        let link = try CuttableLink(to: broker.port)
        defer { link.end() }
        let client = Client(Client.Plan(id: "c", port: link.port, version: .v5), ledger: Ledger())
        defer { client.end() }
        try #require(waitUpTo(5) { client.isConnected })
        link.cut()
        #expect(waitUpTo(2) { !client.isConnected })
        usleep(300_000)
        #expect(!client.isConnected)
        link.restore()
        #expect(waitUpTo(5) { client.isConnected })
        link.blackHole()
        usleep(500_000)
        #expect(client.isConnected)
        link.restore()
        usleep(300_000)
        #expect(client.isConnected)
        #expect(client.connections == 2)
        #expect(client.sessionsLost == 0)
    }

    @Test("a process that was killed is gone, and one that cannot start says so")
    func childrenEnd() throws {
        let rig = try Rig()
        let child = try ChildProcess("/bin/sleep", ["1000"], log: rig.place.file("log"))
        #expect(child.isRunning)
        child.kill()
        #expect(child.ended(within: 0) == .signalled(SIGKILL))
        #expect(throws: WorkbenchError.self) {
            try ChildProcess("/nowhere/x", [], log: rig.place.file("log"))
        }
    }
}
