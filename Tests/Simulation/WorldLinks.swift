import GatewayCore
import Journal
import MQTT
import Uplink

// Connections between the gateway and the others, and how they end.
extension World {
    // MARK: Connections

    func connect(_ peer: Int) {
        isConnecting[peer] = false
        guard linkOf[peer] == nil, cast.peers[peer].wantsLink, !cast.isCloud(peer) else { return }
        guard let host, host.isServing, asleepUntil <= now else {
            isConnecting[peer] = true
            return events.add(.connects(peer: peer), at: now + 200_000 + UInt64(linkDice.below(800_000)))
        }
        let connection = nextConnection
        nextConnection += 1
        let link = open(peer, connection)
        linkOfConnection[connection] = link
        tell { $0.opened(connection) }
        cast.peers[peer].linkOpened(at: now)
        pump(peer)
    }

    func open(_ peer: Int, _ connection: UInt64?) -> Int {
        statistics.connections += 1
        links.append(SimulatedLink(peer: peer, life: life, connection: connection, road: road))
        openLinks.append(links.count - 1)
        linkOf[peer] = links.count - 1
        trace.say("\(cast.name(peer)) is connected", at: now)
        return links.count - 1
    }

    func dial(_ index: UplinkIndex) {
        let peer = cast.cloud(index)
        guard now >= cloudAwayUntil, !isAbsent(peer), cast.peers[peer].wantsLink || linkOf[peer] != nil
        else { return tell { $0.uplinkFailed(index) } }
        if let old = linkOf[peer] {
            // The cloud has not noticed yet that the last one is gone.
            links[old].isOpenAtPeer = false
            linkOf[peer] = nil
            cast.peers[peer].linkLost(at: now)
            _ = cast.peers[peer].takeOutput()
            cast.listen(to: peer, at: now, &trace)
        }
        linkOfUplink[index.number] = open(peer, nil)
        cast.peers[peer].linkOpened(at: now)
        pump(peer)
        tell { $0.uplinkReady(index) }
    }

    /// Hands on what somebody has to say, and sees what it wants.
    func pump(_ peer: Int) {
        cast.listen(to: peer, at: now, &trace)
        let output = cast.peers[peer].takeOutput()
        if let link = linkOf[peer] {
            if !output.isEmpty { send(link, toGateway: true, output) }
            if cast.peers[peer].wantsClose { closeAtPeer(link) }
        }
        if linkOf[peer] == nil, !isConnecting[peer], cast.peers[peer].wantsLink, !cast.isCloud(peer) {
            isConnecting[peer] = true
            events.add(.connects(peer: peer), at: now + 1_000 + UInt64(linkDice.below(50_000)))
        }
        if let next = cast.peers[peer].nextWake {
            let at = max(next, now + 1)
            if wakeAt[peer].map({ at < $0 }) ?? true {
                wakeAt[peer] = at
                events.add(.wakes(peer: peer), at: at)
            }
        }
    }

    func send(_ link: Int, toGateway: Bool, _ bytes: [UInt8]) {
        let road = links[link].road
        let arrivals =
            toGateway
            ? links[link].toGateway.send(bytes, at: now, road, &linkDice)
            : links[link].toPeer.send(bytes, at: now, road, &linkDice)
        for arrival in arrivals {
            events.add(.arrives(link: link, toGateway: toGateway, count: arrival.count), at: arrival.at)
        }
        if !toGateway, links[link].isWritable, links[link].toPeer.bytes.count > SimulatedLink.waitingBytesHigh
        {
            events.add(.buffer(link: link), at: now)
        }
    }

    func arriveAtGateway(_ link: Int, _ count: Int) {
        let bytes = links[link].toGateway.take(count)
        guard links[link].life == life, links[link].isOpenAtGateway, !bytes.isEmpty else { return }
        statistics.bytesToGateway += bytes.count
        trace.note(bytes)
        trace.say("\(cast.name(links[link].peer)) > \(PacketWords.of(bytes))", at: now)
        if let connection = links[link].connection {
            tell { $0.received(connection, bytes) }
        } else if let index = uplink(link) {
            tell { $0.uplinkReceived(index, bytes) }
        }
    }

    func arriveAtPeer(_ link: Int, _ count: Int) {
        if linkOf[links[link].peer] == link, !cast.peers[links[link].peer].isReading {
            return events.add(.arrives(link: link, toGateway: false, count: count), at: now + 100_000)
        }
        let bytes = links[link].toPeer.take(count)
        let peer = links[link].peer
        if !links[link].isWritable, links[link].toPeer.bytes.count <= SimulatedLink.waitingBytesLow {
            events.add(.buffer(link: link), at: now)
        }
        guard linkOf[peer] == link, links[link].isOpenAtPeer, !bytes.isEmpty else { return }
        if bytes.count > 4 { movedAt = now }
        statistics.bytesToPeers += bytes.count
        trace.note(bytes)
        trace.say("\(cast.name(peer)) < \(PacketWords.of(bytes))", at: now)
        cast.peers[peer].received(bytes, at: now)
        pump(peer)
    }

    func tellWritability(_ link: Int) {
        let waiting = links[link].toPeer.bytes.count
        let isWritable =
            links[link].isWritable
            ? waiting <= SimulatedLink.waitingBytesHigh : waiting <= SimulatedLink.waitingBytesLow
        guard isWritable != links[link].isWritable, links[link].life == life, links[link].isOpenAtGateway
        else { return }
        links[link].isWritable = isWritable
        if let connection = links[link].connection {
            tell { $0.writability(connection, isWritable) }
        } else if let index = uplink(link) {
            tell { $0.uplinkWritability(index, isWritable) }
        }
    }

    func uplink(_ link: Int) -> UplinkIndex? {
        let index = cast.uplinkIndex(of: links[link].peer)
        return index.flatMap { linkOfUplink[$0.number] == link ? $0 : nil }
    }

    // MARK: Ends of connections

    /// Behind what it has sent.
    func closeAtPeer(_ link: Int) {
        let peer = links[link].peer
        trace.say("\(cast.name(peer)) closes", at: now)
        links[link].toGateway.isOver = true
        links[link].isOpenAtPeer = false
        events.add(.ends(link: link, toGateway: true), at: max(now, links[link].toGateway.notBefore) + 1_000)
        linkOf[peer] = nil
        cast.peers[peer].linkLost(at: now)
        pump(peer)
    }

    func closeAtGateway(_ link: Int) {
        links[link].toPeer.isOver = true
        events.add(.ends(link: link, toGateway: false), at: max(now, links[link].toPeer.notBefore) + 1_000)
    }

    func endAtGateway(_ link: Int) {
        forget(link)
        guard links[link].isOpenAtGateway, links[link].life == life else { return }
        links[link].isOpenAtGateway = false
        links[link].toGateway.isOver = true
        links[link].toPeer.isOver = true
        if let connection = links[link].connection {
            linkOfConnection[connection] = nil
            let wasThere = host?.knows(connection) == true
            tell { $0.lost(connection) }
            if !links[link].isMutilated, wasThere, host?.knows(connection) == false {
                cast.heardOut(links[link].peer, at: now)
            }
        } else if let index = uplink(link) {
            linkOfUplink[index.number] = nil
            tell { $0.uplinkLost(index) }
        }
        // Whatever still comes from the peer is answered with a reset.
        if links[link].isOpenAtPeer {
            events.add(
                .ends(link: link, toGateway: false), at: max(now, links[link].toPeer.notBefore) + 100_000)
        }
    }

    func endAtPeer(_ link: Int) {
        let peer = links[link].peer
        if links[link].isOpenAtGateway {
            events.add(
                .ends(link: link, toGateway: true), at: max(now, links[link].toGateway.notBefore) + 1_000)
        }
        forget(link)
        guard links[link].isOpenAtPeer, linkOf[peer] == link else { return }
        links[link].isOpenAtPeer = false
        links[link].toGateway.isOver = true
        linkOf[peer] = nil
        trace.say("\(cast.name(peer)) learns that its connection is gone", at: now)
        cast.peers[peer].linkLost(at: now)
        pump(peer)
    }

    func forget(_ link: Int) {
        if !links[link].isOpenAtGateway || !links[link].isOpenAtPeer {
            openLinks.removeAll {
                $0 == link && (!links[$0].isOpenAtGateway || links[$0].life != life)
                    && !links[$0].isOpenAtPeer
            }
        }
    }

    /// What is on its way is lost, from any byte on.
    func cut(_ link: Int, gatewayLearnsAfter: UInt64, peerLearnsAfter: UInt64) {
        links[link].isMutilated = true
        links[link].toGateway.cut(&linkDice)
        links[link].toPeer.cut(&linkDice)
        events.add(
            .ends(link: link, toGateway: true),
            at: max(now, links[link].toGateway.notBefore) + gatewayLearnsAfter)
        events.add(
            .ends(link: link, toGateway: false), at: max(now, links[link].toPeer.notBefore) + peerLearnsAfter)
    }
}
