/// Finds out whether an uplink carries messages.
package enum Probe {
    /// Returns once a message has come through in each direction.
    ///
    /// Before the gateway has subscribed at the cloud, the cloud owes it nothing, so nothing should be counted.
    /// The routes are to carry `sensors/#` up to `prefix/sensors/#`, and `prefix/commands/#` down to `commands/#`.
    ///
    /// - Throws: `WorkbenchError` when nothing comes through for 20 seconds.
    package static func awaitUplink(
        of gateway: UInt16, cloud: UInt16, prefix: String, speaking version: Client.Version = .v5
    ) throws {
        let ledger = Ledger()
        var up = Client.Plan(id: "probe-up", port: gateway, version: .v5)
        up.publications = [
            .init(
                stream: ledger.open(.up, qos: 1, name: up.id), topic: "sensors/probe", qos: 1, perSecond: 5)
        ]
        up.subscriptions = [("commands/probe", 1)]
        var down = Client.Plan(id: "probe-down", port: cloud, version: version)
        down.publications = [
            .init(
                stream: ledger.open(.down, qos: 1, name: down.id), topic: "\(prefix)/commands/probe", qos: 1,
                perSecond: 5)
        ]
        down.subscriptions = [("\(prefix)/sensors/probe", 1)]
        up.sessionExpirySeconds = 0
        down.sessionExpirySeconds = 0
        let probes = [Client(up, ledger: ledger), Client(down, ledger: ledger)]
        defer { probes.forEach { $0.end() } }
        guard waitUpTo(10, until: { probes.allSatisfy { $0.isReady } }) else {
            throw WorkbenchError("the probes cannot connect")
        }
        probes.forEach { $0.publishing(true) }
        guard waitUpTo(20, until: { ledger.totals(.up).received > 0 && ledger.totals(.down).received > 0 })
        else {
            throw WorkbenchError(
                "no message comes through the uplink: up \(ledger.totals(.up)), down \(ledger.totals(.down))")
        }
        probes.forEach { $0.publishing(false) }
        waitUpTo(5) { ledger.backlog(.up) == 0 && ledger.backlog(.down) == 0 }
    }
}
