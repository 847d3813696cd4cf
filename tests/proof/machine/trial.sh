#!/bin/bash
# Runs as the last service of a machine that systemd has booted: does what docs/how-to/deploy.md says, and writes a line
# of name=value to standard output for each thing to be seen. The machine is powered off afterwards.
see() { echo "$1=$(echo "${*:2}" | tr '\n' ' ' | sed 's/ *$//')"; }
ask() { curl --silent --show-error --max-time 30 --retry 20 --retry-connrefused --retry-delay 1 "http://127.0.0.1:8000$1" "${@:2}" 2>&1; }
newest() { ask '/v1/channels/news?last=1' | grep --only-matching '"data":"[^"]*"'; }
of() { systemctl show --property "$1" --value oncecast; }

ip link set lo up
systemctl enable --now oncecast
see started $? "$(systemctl is-active oncecast)" "$(of StatusText)"
see user "$(ps -o uid= -p "$(of MainPID)" | awk '{print ($1 >= 61184 && $1 <= 65519) ? "dynamic" : $1}')"
see published "$(ask /v1/channels/news -d hello | grep --only-matching '"durability":"[a-z]*"')"
see file "$(stat --format %a /var/lib/private/oncecast/oncecast.db)"

systemctl reload oncecast
see reloaded $? "$(systemctl is-active oncecast)" "$(newest)"

kill -KILL "$(of MainPID)"
see killed "$(newest)" "$(of NRestarts)"

kill -STOP "$(of MainPID)"
for _ in $(seq 60); do [ "$(of NRestarts)" = 2 ] && break; sleep 1; done
see stuck "$(newest)" "$(of NRestarts)"

systemctl stop oncecast
see stopped $? "$(of Result)" "$(systemctl is-active oncecast)"

systemctl disable oncecast
systemctl enable --now oncecast.socket
see socket $? "$(systemctl is-active oncecast)" "$(newest)" "$(systemctl is-active oncecast)"
# What comes while it restarts waits in the socket: no retry here.
systemctl restart oncecast &
sleep 0.05
see waits "$(curl --silent --show-error --max-time 30 'http://127.0.0.1:8000/v1/channels/news?last=1' 2>&1 | grep --count hello)"
wait
systemctl stop oncecast.socket oncecast
systemctl disable oncecast.socket

sed -i 's/^#workers.*/workers = 2/' /etc/oncecast.toml
systemctl start oncecast
before=$(pgrep --full 'process[.]worker')
systemctl kill --signal USR2 --kill-whom main oncecast
for _ in $(seq 60); do journalctl --unit oncecast --output cat | grep --quiet 'every worker is a new one' && break; sleep 1; done
after=$(pgrep --full 'process[.]worker')
see rolled "$(echo "$before" | wc --lines)" "$(echo "$after" | wc --lines)" "$(comm -12 <(sort <<< "$before") <(sort <<< "$after") | wc --lines)" "$(newest)"
systemctl stop oncecast
see ended "$(of Result)"
see exposure "$(systemd-analyze security oncecast --no-pager | grep --only-matching 'level for oncecast.service: .*' | grep --only-matching 'OK\|MEDIUM\|EXPOSED\|UNSAFE')"
